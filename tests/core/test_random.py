"""Philox against Random123's known answers; draws depend on (seed, stream, step, id) and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core import random
from calotype.core.random import batch_ids, normal, philox, seeded_noise, uniform

# kat_vectors of Random123, "philox4x32 10": counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_known_answers(counter: str, key: str, words: str) -> None:
    inputs = tuple(torch.tensor([int(word, 16)]) for word in counter.split())
    drawn = philox(inputs, tuple(int(word, 16) for word in key.split()))  # type: ignore[arg-type]
    assert [f"{word.item():08x}" for word in drawn] == words.split()


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_sample_draws_the_same_alone_and_in_any_batch(draw) -> None:
    ids = torch.tensor([7, 0, 123456, 7, 2**32 - 1])
    together = draw(3, "noise", 11, ids, (4, 3, 5))
    for place, sample_id in enumerate(ids):
        assert torch.equal(draw(3, "noise", 11, sample_id[None], (4, 3, 5))[0], together[place])
    assert torch.equal(together[0], together[3])


def test_steps_may_differ_by_row() -> None:
    ids, steps = torch.arange(6), torch.tensor([0, 5, 5, 2, 0, 9])
    together = normal(1, "noise", steps, ids, (8,))
    for place, step in enumerate(steps.tolist()):
        assert torch.equal(together[place], normal(1, "noise", step, ids[place : place + 1], (8,))[0])


def test_every_argument_matters() -> None:
    ids = torch.arange(64)
    base = uniform(0, "noise", 0, ids, (4,))
    others = [
        uniform(1, "noise", 0, ids, (4,)),
        uniform(2**32, "noise", 0, ids, (4,)),  # the high word of the seed
        uniform(0, "flip", 0, ids, (4,)),
        uniform(0, "noise", 1, ids, (4,)),
        uniform(0, "noise", 0, ids + 64, (4,)),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1]) < 0.25
        assert not (base == other).any()


def test_uniform_has_the_moments_of_the_unit_interval() -> None:
    draws = uniform(0, "t", 0, torch.arange(50_000)).double()
    assert draws.shape == (50_000,)
    assert draws.mean() == pytest.approx(1 / 2, abs=4 * (1 / 12 / 50_000) ** 0.5)
    assert draws.var() == pytest.approx(1 / 12, rel=0.02)
    counts = torch.histc(draws, bins=50, min=0, max=1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 90  # chi-square, 49 degrees: 90 is p = 3e-4


def test_normal_has_the_moments_and_tails_of_a_normal() -> None:
    draws = normal(0, "noise", 0, torch.arange(400), (3, 167)).double().flatten()
    assert len(draws) == 200_400
    assert draws.mean() == pytest.approx(0, abs=0.01)
    assert draws.var() == pytest.approx(1, abs=0.02)
    assert (draws**4).mean() == pytest.approx(3, abs=0.1)
    assert (draws.abs() > 3).double().mean() == pytest.approx(0.0027, abs=0.0005)


def test_the_two_halves_of_box_muller_are_uncorrelated() -> None:
    draws = normal(0, "noise", 0, torch.arange(20_000), (2,)).double()
    for moment in (draws, draws**2):
        assert abs(torch.corrcoef(moment.T)[0, 1]) < 0.03


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_the_extreme_words_stay_inside(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "_words", lambda *arguments: torch.full((1, arguments[-1]), word))
    value = uniform(0, "t", 0, torch.tensor([0]))
    assert 0 < value < 1
    assert normal(0, "noise", 0, torch.tensor([0]), (2,)).isfinite().all()


def test_a_picture_seed_draws_one_noise() -> None:
    alone = seeded_noise(torch.tensor([7]), 0, (4, 8, 8))
    among = seeded_noise(torch.arange(64), 0, (4, 8, 8))
    assert torch.equal(alone[0], among[7])
    assert not torch.equal(seeded_noise(torch.tensor([7]), 1, (4, 8, 8)), alone)


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 2**40))
def test_every_sample_is_visited_once_an_epoch(samples: int, batch: int, seed: int) -> None:
    steps = -(-3 * samples // batch)
    order = torch.cat([batch_ids(seed, step, batch, samples) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * samples : (epoch + 1) * samples].tolist()) == list(range(samples))


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    small = torch.cat([batch_ids(5, step, 4, 30) for step in range(30)])
    large = torch.cat([batch_ids(5, step, 12, 30) for step in range(10)])
    assert torch.equal(small, large)


def test_epochs_are_shuffled_afresh_and_evenly() -> None:
    samples, epochs = 8, 800
    orders = batch_ids(0, 0, samples * epochs, samples).reshape(epochs, samples)
    first = torch.bincount(orders[:, 0], minlength=samples).double()
    assert ((first - epochs / samples) ** 2 / (epochs / samples)).sum() < 24.3  # chi-square, 7 degrees: p = .001
    assert len({tuple(order) for order in orders.tolist()}) > 780
