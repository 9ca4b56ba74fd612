"""Do samples lie where real pictures lie (precision, density), and everywhere they do (recall, coverage)?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.evaluation.estimates import Estimate, normal_estimate, share_of_variance
from calotype.evaluation.similarity import two_sets


@dataclass(frozen=True)
class Support:
    """Precision and recall of Kynkäänniemi et al. 2019, density and coverage of Naeem et al. 2020.

    Each picture has a ball that reaches its k-th neighbour on its own side. precision: the share of samples in any
    ball of a real picture; density: how many such balls a sample is in, by k; recall: the share of real pictures in any
    ball of a sample; coverage: the share of real pictures whose ball holds a sample.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def support(samples: Tensor, real: Tensor, *, neighbours: int = 5) -> Support:
    """Features (n, d) of samples against (m, d) of real pictures; n and m are at least neighbours + 2.

    All four depend on how many pictures there are: compare sets of one size. The intervals allow for chance on both
    sides, by the jackknife (eqs. 70 and 71): every picture is left out once, and the balls that it held down
    grow. They are wider than they need be, up to twice.
    """
    samples, real = two_sets(samples, real, at_least=neighbours + 2)
    distances = torch.cdist(samples - real.mean(0), real - real.mean(0))
    precision, density, coverage = _scores(real, distances.T, neighbours)
    recall, _, _ = _scores(samples, distances, neighbours)
    return Support(_share(precision), _share(recall), _mean(density), _share(coverage))


@dataclass(frozen=True)
class _Score:
    """A score, and what it is without each centre (c,) and without each query (q,)."""

    value: float
    without_centre: Tensor
    without_query: Tensor

    @property
    def variance(self) -> float:
        """Of the jackknife (Efron & Stein 1981), both sides added."""
        sides = (self.without_centre, self.without_query)
        return sum(float((side - side.mean()).square().sum()) * (len(side) - 1) / len(side) for side in sides)

    @property
    def count(self) -> int:
        return min(len(self.without_centre), len(self.without_query))


def _scores(centres: Tensor, distances: Tensor, neighbours: int) -> tuple[_Score, _Score, _Score]:
    """Precision, density and coverage of queries by the balls of centres (c, d), from their distances (c, q)."""
    c, q = distances.shape
    among = torch.cdist(centres - centres.mean(0), centres - centres.mean(0)).fill_diagonal_(torch.inf)
    radii, nearest = among.topk(neighbours + 1, dim=1, largest=False)
    inside = distances < radii[:, -2:-1]
    grown = (distances < radii[:, -1:]) & ~inside
    holds_down = torch.zeros(c, c).scatter_(1, nearest[:, :-1], 1.0).T  # [l, i]: the ball of i grows without l
    balls = inside.sum(0)
    balls_without = balls + holds_down @ grown.float() - inside.float()

    def mean_without_query(values: Tensor) -> Tensor:
        return (values.sum() - values) / (q - 1)

    precise, dense = (balls > 0).double(), balls.double() / neighbours
    covered = inside.any(1)
    gained = holds_down @ (grown.any(1) & ~covered).float() - covered.float()
    lost = ((inside.sum(1, keepdim=True) == 1) & inside).sum(0)
    return (
        _Score(float(precise.mean()), (balls_without > 0.5).double().mean(1), mean_without_query(precise)),
        _Score(float(dense.mean()), balls_without.double().mean(1) / neighbours, mean_without_query(dense)),
        _Score(
            float(covered.double().mean()),
            (covered.sum() + gained.double()) / (c - 1),
            (covered.sum() - lost).double() / c,
        ),
    )


def _share(score: _Score) -> Estimate:
    return share_of_variance(score.value, score.variance, score.count)


def _mean(score: _Score) -> Estimate:
    found = normal_estimate(score.value, score.variance, score.count)
    return replace(found, low=max(found.low, 0.0))
