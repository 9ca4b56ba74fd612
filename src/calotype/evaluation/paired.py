"""Is one way of drawing better than another? Judged picture by picture, on the same prompts and seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.evaluation.distances import kernel
from calotype.evaluation.estimates import Estimate, normal_estimate


@dataclass(frozen=True)
class Drawn:
    """What is known of n pictures, drawn for prompts `group` (n,) int64, against k real ones.

    `distance` is their kernel distance; `pull` (n,) and `reach` (k,) are its first-order parts (the Hajek projection of
    a U-statistic, Hoeffding 1948), one a sample and one a real picture: how much it owes to each. `missed` (n,) is 1
    where a picture is not what was asked for, None where nothing was asked.
    """

    distance: float
    pull: Tensor
    reach: Tensor
    missed: Tensor | None
    group: Tensor


@dataclass(frozen=True)
class Scale:
    """What counts as none and as one: the kernel distance and share of misses of what cannot be bettered (the best that
    an autoencoder lets through), and how much more than that the way of drawing has which others are compared with.
    """

    distance: float
    missed: float | None
    least_distance: float = 0.0
    least_missed: float = 0.0


def drawn(features: Tensor, reference: Tensor, missed: Tensor | None, group: Tensor) -> Drawn:
    """Measure samples' features (n, d) against those of real pictures (k, d); `group` (n,) says whose prompt.

    Pictures of one prompt are alike: pairs of them are left out, as every picture beside itself is.
    """
    a, b = features.double(), reference.double()
    among_a, among_b, between = kernel(a, a), kernel(b, b), kernel(a, b)
    others = group[:, None] != group
    rows_a = (among_a * others).sum(1) / others.sum(1).clamp(min=1)
    rows_b = (among_b.sum(1) - among_b.diagonal()) / (len(b) - 1)
    distance = float(rows_a.mean() + rows_b.mean() - 2 * between.mean())
    pull, reach = 2 * (rows_a - between.mean(1)), 2 * (rows_b - between.mean(0))
    return Drawn(distance, pull, reach, None if missed is None else missed.double(), group)


def scale_of(base: Drawn, least: Drawn) -> Scale:
    """From `base` and from `least`, pictures as good as they can be.

    A difference counts for no less than can be told from none: two standard errors of the distance, one picture.
    """
    apart = distance_difference(base, least)
    distance = max(apart.value, apart.high - apart.value)
    if base.missed is None or least.missed is None:
        return Scale(distance, None, least.distance)
    missed, unavoidable = float(base.missed.mean()), float(least.missed.mean())
    return Scale(distance, max(missed - unavoidable, 1 / len(base.missed)), least.distance, unavoidable)


def cost(one: Drawn, scale: Scale) -> float:
    """Kernel distance and misses, each as a share of the scale's, and their mean where both are known: lower is better.

    So halving what can be gained in distance is worth as much as halving what can be gained in misses.
    """
    distance = (one.distance - scale.least_distance) / scale.distance
    if one.missed is None or scale.missed is None:
        return distance
    return (distance + (float(one.missed.mean()) - scale.least_missed) / scale.missed) / 2


def cost_difference(one: Drawn, other: Drawn, scale: Scale) -> Estimate:
    """cost(one) - cost(other) with its 95 % interval, over prompts and real pictures; equal pictures cancel out.

    Both must be of the same prompts and the same real pictures, in the same order.
    """
    if not torch.equal(one.group, other.group) or len(one.reach) != len(other.reach):
        raise ValueError("a paired comparison needs the same prompts and real pictures on both sides")
    half = 1.0 if scale.missed is None else 0.5
    samples = half * (one.pull - other.pull) / scale.distance
    if scale.missed is not None and one.missed is not None and other.missed is not None:
        samples = samples + half * (one.missed - other.missed) / scale.missed
    grouped = _by_group(samples, one.group)
    reals = half * (one.reach - other.reach) / scale.distance
    value = cost(one, scale) - cost(other, scale)
    return normal_estimate(value, _variance(grouped) + _variance(reals), min(len(grouped), len(reals)))


def distance_difference(one: Drawn, other: Drawn) -> Estimate:
    """The difference of the kernel distances alone."""
    return cost_difference(replace(one, missed=None), replace(other, missed=None), Scale(1.0, None))


def missed_difference(one: Drawn, other: Drawn) -> Estimate | None:
    """The difference of the shares of misses alone; None where nothing was asked for."""
    if one.missed is None or other.missed is None:
        return None
    grouped = _by_group(one.missed - other.missed, one.group)
    return normal_estimate(float((one.missed - other.missed).mean()), _variance(grouped), len(grouped))


def _by_group(values: Tensor, group: Tensor) -> Tensor:
    """Mean of the values (n,) of every prompt: pictures of one prompt are not independent."""
    prompts, prompt_of = group.unique(return_inverse=True)
    total = torch.zeros(len(prompts), dtype=torch.float64).index_add(0, prompt_of, values.double())
    return total / torch.bincount(prompt_of)


def _variance(values: Tensor) -> float:
    """Of the mean of independent values (n,)."""
    return float(values.var()) / len(values) if len(values) > 1 else 0.0
