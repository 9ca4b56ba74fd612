import json

import pytest
import torch
from torch import Tensor

from calotype.evaluation import Estimate
from calotype.evaluation.memorization import Memorization, judge, memorization, nearest
from tests.evaluation.shapes import blurred, families, noisy, shapes

TRAINING, HELD_OUT = shapes(300, 0), shapes(100, 1)


def _copied(count: int, training: Tensor = TRAINING, seed: int = 2) -> Tensor:
    return torch.randint(len(training), (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(20))
def test_fresh_pictures_are_not_called_copies(seed: int) -> None:
    count = (60, 300, 1000)[seed % 3]
    training, held_out = shapes(count, 100 + seed), shapes(count // 10, 200 + seed)
    found = memorization(shapes(128, 300 + seed), training, held_out)
    assert judge(found)[0] in ("new", "unknown")
    assert found.excess.low < 0.05
    assert 0.3 < found.nearer.value < 0.7


@pytest.mark.parametrize(
    "damage",
    [
        lambda images: images,
        lambda images: noisy(images, 0.1),
        lambda images: noisy(images, 0.3),
        lambda images: noisy(blurred(images), 0.1),
        lambda images: images.flip(-1),
        lambda images: images.roll((1, -1), (2, 3)),
        lambda images: 0.5 * images + 0.5 * TRAINING.mean(0),
    ],
    ids=["exact", "noise .1", "noise .3", "blur and noise", "mirrored", "moved", "pale"],
)
def test_copies_are_found_with_their_originals(damage) -> None:
    originals = _copied(100)
    found = memorization(damage(TRAINING[originals]), TRAINING, HELD_OUT, own=originals)
    assert judge(found)[0] == "memory"
    assert found.excess.low > 0.85
    assert found.recalled is not None
    assert found.recalled.value > 0.95
    assert (found.neighbours == originals).double().mean() > 0.95
    assert found.is_copy.double().mean() == pytest.approx(found.copies.value, abs=0.02)


@pytest.mark.parametrize(("count", "held_out"), [(60, 3), (300, 15), (2000, 100)])
def test_a_memory_of_any_size_is_found(count: int, held_out: int) -> None:
    training = shapes(count, 5)
    samples = noisy(training[_copied(100, training)], 0.1)
    assert judge(memorization(samples, training, shapes(held_out, 6)))[0] == "memory"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_the_excess_of_a_mixture_is_its_share_of_copies(share: float) -> None:
    training, held_out = shapes(300, 7), shapes(300, 8)
    copies = round(500 * share)
    samples = torch.cat([noisy(training[_copied(copies, training)], 0.1), shapes(500 - copies, 9)])
    found = memorization(samples, training, held_out)
    assert found.excess.low < share < found.excess.high
    assert found.excess.value == pytest.approx(share, abs=0.1)
    assert found.excess.high - found.excess.low < 0.3


def test_twins_in_the_data_neither_hide_copies_nor_make_them() -> None:
    pictures = families(440, 10)
    training, held_out = pictures[:300], pictures[300:370]
    assert judge(memorization(pictures[370:], training, held_out))[0] in ("new", "unknown")
    found = memorization(noisy(training[_copied(100)], 0.2), training, held_out)
    verdict, summary = judge(found)
    assert verdict == "memory"
    assert found.baseline.value > 0.5
    assert "many pictures of this set are alike" in summary


def test_a_copy_of_one_of_many_equal_pictures_is_a_copy() -> None:
    training = torch.cat([TRAINING, noisy(TRAINING[:1].repeat(60, 1, 1, 1), 0.02)])
    found = memorization(noisy(TRAINING[:1].repeat(100, 1, 1, 1), 0.1), training, HELD_OUT)
    assert judge(found)[0] == "memory"
    assert found.copies.value == 1.0


def test_grey_pictures_near_everything_are_no_copies() -> None:
    samples = noisy(TRAINING.mean(0).expand(100, -1, -1, -1), 0.1)
    found = memorization(samples, TRAINING, HELD_OUT)
    assert judge(found)[0] == "new"
    assert found.copies.value < 0.05


def test_intervals_cover_nothing_copied() -> None:
    """Fresh vectors: the chance to be nearer is one half, the share of copies none; the bounds are five sigma wide."""
    generator = torch.Generator().manual_seed(0)
    runs = 300
    covered = torch.zeros(2)
    for _ in range(runs):
        samples, training, held_out = torch.randn(240, 6, generator=generator).split([80, 100, 60])
        found = memorization(samples, training, held_out)
        covered += torch.tensor([part.low <= v <= part.high for part, v in ((found.nearer, 0.5), (found.excess, 0.0))])
    assert covered.min() / runs >= 0.89
    assert covered.max() / runs <= 0.99


def test_samples_of_one_prompt_count_as_one() -> None:
    own = torch.arange(20)
    once = memorization(TRAINING[own], TRAINING, HELD_OUT, own=own)
    often = memorization(TRAINING[own].repeat(5, 1, 1, 1), TRAINING, HELD_OUT, own=own.repeat(5))
    assert often.copies == once.copies
    assert often.recalled == once.recalled
    assert often.nearer == once.nearer
    assert once.copies.count == 20


def test_a_sample_without_a_training_prompt_is_alone_and_not_recalled() -> None:
    own = torch.tensor([0, 1, 2, -1, -1])
    found = memorization(TRAINING[[0, 1, 5, 6, 7]], TRAINING, HELD_OUT, own=own)
    assert found.copies.count == 5
    assert found.recalled is not None
    assert found.recalled.count == 3
    assert found.recalled.value == pytest.approx(2 / 3)
    assert memorization(TRAINING[:3], TRAINING, HELD_OUT, own=torch.full((3,), -1)).recalled is None


def test_training_pictures_join_a_small_held_out_set_but_their_copies_do_not() -> None:
    training = torch.cat([TRAINING[:100], TRAINING[:30]])
    found = memorization(shapes(50, 3), training, HELD_OUT[:5])
    assert found.baseline.count == 5 + 70
    assert found.baseline.value < 0.5
    assert memorization(shapes(50, 3), training, HELD_OUT[:0]).baseline.count == 70
    assert memorization(shapes(50, 3), training, HELD_OUT[:40]).baseline.count == 40
    twice = TRAINING[:5].repeat(2, 1, 1, 1)
    assert memorization(shapes(50, 3), twice, HELD_OUT[:0]).baseline.count == 10


def test_distances_are_those_of_every_view_tried_by_hand() -> None:
    queries, training = shapes(4, 11).flip(-1).roll((1, 1), (2, 3)), shapes(9, 12)

    def seen(picture: Tensor) -> Tensor:
        return picture.view(3, 16, 2, 16, 2).mean((2, 4)).flatten()

    stored = torch.stack([seen(picture) for picture in training])
    centre = stored.mean(0)
    expected = torch.full((4, 9), 9.0)
    rows = torch.arange(32)
    for i, query in enumerate(queries):
        for picture in (query, query.flip(-1)):
            for y in (-1, 0, 1):
                for x in (-1, 0, 1):
                    moved = picture[:, (rows + y).clamp(0, 31)][:, :, (rows + x).clamp(0, 31)]
                    cosines = torch.cosine_similarity((seen(moved) - centre)[None], stored - centre)
                    expected[i] = torch.minimum(expected[i], 1 - cosines)
    distances, ids = nearest(queries, training)
    assert (distances - expected.min(1).values).abs().max() < 1e-5
    assert ids.tolist() == expected.argmin(1).tolist()


def test_bytes_and_images_larger_pictures_and_small_ones_are_compared_alike() -> None:
    as_bytes = ((TRAINING + 1) * 127.5).round().to(torch.uint8)
    distances, ids = nearest(TRAINING[:20].repeat_interleave(2, -1).repeat_interleave(2, -2)[:, :, ::2, ::2], as_bytes)
    assert ids.tolist() == list(range(20))
    assert distances.max() < 1e-3
    tiny = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert nearest(tiny, tiny)[1].tolist() == list(range(10))


def test_the_record_is_json() -> None:
    plain = memorization(TRAINING[:9], TRAINING, HELD_OUT).plain()
    assert set(plain) == {"copies", "baseline", "excess", "nearer", "recalled", "threshold"}
    assert set(json.loads(json.dumps(plain))["copies"]) == {"value", "low", "high", "count"}


def test_nothing_to_compare_is_refused() -> None:
    for samples, training in ((TRAINING[:0], TRAINING), (TRAINING, TRAINING[:2])):
        with pytest.raises(ValueError, match="at least three training pictures"):
            memorization(samples, training, HELD_OUT)
    with pytest.raises(ValueError, match="of one shape"):
        nearest(TRAINING, TRAINING[:, :, 1:])


def _found(low: float, high: float, *, nearer: float = 0.4, count: int = 100) -> Memorization:
    def estimate(low: float, high: float) -> Estimate:
        return Estimate((low + high) / 2, low, high, count)

    return Memorization(
        copies=estimate(0.2, 0.3),
        baseline=estimate(0.1, 0.2),
        nearer=estimate(nearer, 0.99),
        recalled=None,
        excess=estimate(low, high),
        threshold=0.3,
        distances=torch.zeros(1),
        neighbours=torch.zeros(1, dtype=torch.int64),
    )


NEW, PARTLY, MEMORY, UNKNOWN = _found(-0.1, 0.1), _found(0.1, 0.3), _found(0.6, 0.9), _found(-0.4, 0.4)


@pytest.mark.parametrize(
    ("pixels", "features", "verdict", "by"),
    [
        (NEW, None, "new", "pixels"),
        (PARTLY, None, "partly", "pixels"),
        (MEMORY, None, "memory", "pixels"),
        (UNKNOWN, None, "unknown", "pixels"),
        (_found(-0.1, 0.1, nearer=0.7), None, "partly", "pixels"),
        (_found(0.9, 1.0, count=7), None, "unknown", "pixels"),
        (NEW, NEW, "new", "pixels"),
        (NEW, MEMORY, "partly", "features"),
        (UNKNOWN, PARTLY, "partly", "features"),
        (NEW, UNKNOWN, "unknown", "pixels"),
        (MEMORY, NEW, "memory", "pixels"),
        (PARTLY, MEMORY, "partly", "pixels"),
    ],
)
def test_verdicts(pixels: Memorization, features: Memorization | None, verdict: str, by: str) -> None:
    said, summary = judge(pixels, features)
    assert said == verdict
    assert f"Compared by {by}" in summary
    assert "25 % of samples" in summary
