"""Paired comparisons: their intervals cover, and what is the same on both sides cancels out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calotype.evaluation import kernel_distance
from calotype.evaluation.paired import (
    Drawn,
    Scale,
    cost,
    cost_difference,
    distance_difference,
    drawn,
    missed_difference,
    scale_of,
)

WIDTH = 8


def normal(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def measured(features: Tensor, reference: Tensor, missed: Tensor | None = None, each: int = 1) -> Drawn:
    return drawn(features, reference, missed, torch.arange(len(features) // each).repeat_interleave(each))


def test_the_distance_and_its_parts_are_those_of_the_kernel_distance() -> None:
    samples, reference = normal(30, 1, 0.3), normal(40, 2)
    one = measured(samples, reference)
    assert one.distance == pytest.approx(kernel_distance(samples, reference), rel=1e-9)
    nudged = samples.clone()
    nudged[3] += 1e-5  # what moving one sample does to the distance, its part says to first order
    moved = measured(nudged, reference)
    assert (moved.pull - one.pull)[3] / 30 == pytest.approx(moved.distance - one.distance, rel=0.05)


def test_pictures_of_a_prompt_are_not_held_to_be_of_several() -> None:
    """Each picture four times over is as far from the real ones as each once."""
    samples, reference = normal(30, 1, 0.3), normal(40, 2)
    four = measured(samples.repeat_interleave(4, 0), reference, each=4)
    assert four.distance == pytest.approx(kernel_distance(samples, reference), rel=1e-9)


def test_the_same_pictures_cost_the_same_for_sure() -> None:
    one = measured(normal(30, 1, 1.3), normal(40, 2), torch.arange(30) % 3 == 0)
    scale = scale_of(one, measured(normal(30, 1), normal(40, 2), torch.arange(30) < 2))
    told = cost_difference(one, one, scale)
    assert told.value == told.low == told.high == 0
    assert cost(one, scale) == pytest.approx(1)


def test_halves_of_distance_and_misses_weigh_alike() -> None:
    def having(distance: float, missed: Tensor | None) -> Drawn:
        return Drawn(distance, torch.zeros(4), torch.zeros(5), missed, torch.arange(4))

    base, least = having(0.3, torch.tensor([1.0, 1, 1, 0])), having(0.1, torch.tensor([1.0, 0, 0, 0]))
    scale = scale_of(base, least)
    assert (scale.distance, scale.missed) == (pytest.approx(0.2), 0.5)
    assert cost(base, scale) == pytest.approx(1)
    assert cost(least, scale) == 0
    assert cost(having(0.2, base.missed), scale) == cost(having(0.3, torch.tensor([1.0, 1, 0, 0])), scale) == 0.75
    assert cost(having(0.2, None), scale_of(having(0.3, None), having(0.1, None))) == pytest.approx(0.5)


def test_the_scale_is_never_less_than_what_can_be_told_from_none() -> None:
    reference, missed = normal(200, 2), torch.zeros(200)
    one, least = measured(normal(200, 1), reference, missed), measured(normal(200, 3), reference, missed)
    scale = scale_of(one, least)
    assert scale.distance > abs(one.distance - least.distance)
    assert scale.missed == 1 / 200


@pytest.mark.parametrize(("samples", "reals", "times", "shift"), [(64, 96, 1.1, 0.4), (256, 48, 1.0, 0.0)])
def test_intervals_of_paired_differences_cover_the_truth(samples: int, reals: int, times: float, shift: float) -> None:
    """Two ways of drawing share their noise; one lies further off. The truth is a mean over many draws.

    In the first case it is the samples that make the interval, in the second the few real pictures.
    """
    scale, values, intervals = Scale(1.0, 0.25), [], []
    for seed in range(400):
        noise, reference = normal(samples, 3 * seed), normal(reals, 3 * seed + 1)
        luck = torch.rand(samples, generator=torch.Generator().manual_seed(3 * seed + 2))
        one = measured(noise + 0.5, reference, luck < 0.3)
        other = measured(noise * times + shift, reference, luck < 0.2)
        told = cost_difference(one, other, scale)
        values.append(told.value)
        intervals.append((told.low, told.high))
    truth = sum(values) / len(values)
    covered = sum(low <= truth <= high for low, high in intervals) / len(intervals)
    assert 0.91 <= covered <= 0.985


def test_pictures_of_one_prompt_count_as_one() -> None:
    reference, missed = normal(50, 9), torch.tensor([0.0, 1] * 20)
    features = normal(40, 1, 0.2)
    many = measured(features.repeat_interleave(4, 0), reference, missed.repeat_interleave(4), each=4)
    none = measured(features.repeat_interleave(4, 0), reference, torch.zeros(160), each=4)
    told = missed_difference(many, none)
    assert told is not None
    assert told.count == 40
    assert told.high - told.low == pytest.approx(2 * 2.02 * 0.5 / 40**0.5, rel=0.05)


def test_parts_of_a_difference() -> None:
    reference = normal(60, 1)
    near, far = measured(normal(50, 2), reference), measured(normal(50, 2, 1.2), reference)
    assert distance_difference(near, far).high < 0 < distance_difference(far, near).low
    assert missed_difference(near, far) is None


def test_other_prompts_cannot_be_compared() -> None:
    reference = normal(60, 1)
    one, other = measured(normal(50, 2), reference), measured(normal(50, 2), reference, each=2)
    with pytest.raises(ValueError, match="same prompts"):
        cost_difference(one, other, Scale(1.0, None))
