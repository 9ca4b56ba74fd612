"""A permutation without a table: one to one, pure, and shuffled well enough that nothing shows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core import random
from calotype.core.permutation import ROUNDS, permuted
from calotype.core.random import batch_ids

BILLION = 10**9


def keys(seed: int) -> list[int]:
    return torch.randint(0, 2**62, (ROUNDS,), generator=torch.Generator().manual_seed(seed)).tolist()


def chi_square(counts: torch.Tensor) -> float:
    """Deviations from an even spread, in standard deviations of the statistic."""
    expected = counts.double().mean()
    freedom = counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


@settings(max_examples=80, deadline=None)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**40))
def test_every_place_goes_somewhere_and_nowhere_twice(count: int, seed: int) -> None:
    assert sorted(permuted(torch.arange(count), count, keys(seed)).tolist()) == list(range(count))


def test_of_a_billion_no_two_places_go_to_the_same() -> None:
    step = 997
    moved = permuted(torch.arange(0, BILLION, step), BILLION, keys(1))
    assert len(moved.unique()) == len(moved)
    assert int(moved.min()) >= 0
    assert int(moved.max()) < BILLION


def test_a_place_goes_where_it_goes_alone_or_in_company() -> None:
    places = torch.tensor([5, 999_999_999, 0, 123_456_789])
    together = permuted(places, BILLION, keys(2))
    alone = torch.cat([permuted(place.reshape(1), BILLION, keys(2)) for place in places])
    assert torch.equal(alone, together)
    assert not torch.equal(permuted(places, BILLION, keys(3)), together)


@pytest.mark.parametrize("count", [2**20 + 1, 10_000_019, BILLION])
def test_neighbours_are_spread_evenly_and_forget_that_they_were_neighbours(count: int) -> None:
    moved = permuted(torch.arange(200_000), count, keys(4))
    where = moved * 50 // count
    assert abs(chi_square(torch.bincount(where, minlength=50))) < 4
    for apart in (1, 2, 1024):
        pairs = where[:-apart] * 50 + where[apart:]
        assert abs(chi_square(torch.bincount(pairs, minlength=2500))) < 4
    steps = (moved[1:] - moved[:-1]) % count * 50 // count
    assert abs(chi_square(torch.bincount(steps, minlength=50))) < 4


def test_one_epoch_says_nothing_of_the_next() -> None:
    first, second = (permuted(torch.arange(200_000), BILLION, keys(n)) * 50 // BILLION for n in (5, 6))
    assert abs(chi_square(torch.bincount(first * 50 + second, minlength=2500))) < 4


def test_large_sets_are_ordered_so_and_small_ones_by_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of a large set visits everything once and straddling batches agree; no table is drawn up for it."""
    monkeypatch.setattr(random, "TABLED", 99)
    small, large = (torch.cat([batch_ids(7, step, 32, n) for step in range(10)]) for n in (99, 100))
    for order, n in ((small, 99), (large, 100)):
        for epoch in range(3):
            assert sorted(order[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    assert torch.equal(large, torch.cat([batch_ids(7, step, 8, 100) for step in range(40)]))
    assert len({tuple(large[i * 100 : (i + 1) * 100].tolist()) for i in range(3)}) == 3
    assert torch.equal(small[:99], random._permutation(7, 0, 99))


def test_a_batch_of_a_billion_pictures_needs_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "_permutation", None)
    ids = batch_ids(0, 3_000_000, 1024, BILLION)
    assert len(ids.unique()) == 1024
    assert torch.equal(ids, batch_ids(0, 3_000_000, 1024, BILLION))
