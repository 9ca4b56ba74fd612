"""Distances between two sets of pictures, as distributions of feature vectors, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.evaluation.estimates import Estimate, normal_estimate, student_quantile
from calotype.evaluation.similarity import two_sets


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance at the number of pictures given, and extrapolated to infinitely many."""

    at_count: Estimate
    at_infinity: Estimate


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features (n, d) and (k, d) (eq. 65; Heusel et al. 2017, eq. 6).

    Covariances are unbiased (n - 1). The estimate is biased upwards for few pictures: compare sets of one size only.
    """
    return _with_influence(*two_sets(features, others, at_least=2))[0]


def estimate_frechet(features: Tensor, others: Tensor, *, seed: int = 0) -> Frechet:
    """`frechet_distance` at this count and, linear in 1/n, at infinity (eqs. 66 and 67; Chong & Forsyth 2020).

    The intervals are of the infinitesimal jackknife. With twice as many pictures as features or more, that at infinity
    holds the truth in 95 to 100 % of simulations and its bias is below a tenth of its width; with as many pictures as
    features it is far too high and never holds it (benchmarks/coverage.py): read the kernel distance there. Eight
    pictures a side are needed; `seed` shuffles them for the halves.
    """
    a, b = two_sets(features, others, at_least=8)
    generator = torch.Generator().manual_seed(seed)
    a, b = a[torch.randperm(len(a), generator=generator)], b[torch.randperm(len(b), generator=generator)]
    whole, whole_a, whole_b = _with_influence(a, b)
    halves = [_with_influence(*pair) for pair in zip(a.tensor_split(2), b.tensor_split(2))]
    count = min(len(a), len(b))
    infinite = 2 * whole - sum(value for value, _, _ in halves) / 2
    from_a = 2 * whole_a - torch.cat([part for _, part, _ in halves])
    from_b = 2 * whole_b - torch.cat([part for _, _, part in halves])
    return Frechet(
        normal_estimate(whole, _variance(whole_a) + _variance(whole_b), count),
        normal_estimate(infinite, _variance(from_a) + _variance(from_b), count),
    )


def _with_influence(a: Tensor, b: Tensor) -> tuple[float, Tensor, Tensor]:
    """The distance and the influence of every picture on it, (n,) and (k,), of mean zero (eq. 66).

    tr (C1 C2)^(1/2) is the sum of the singular values of A B^T / sqrt((n - 1) (k - 1)), A and B the centred features.
    """
    shift = a.mean(0) - b.mean(0)
    a, b = (a - a.mean(0)) / (len(a) - 1) ** 0.5, (b - b.mean(0)) / (len(b) - 1) ** 0.5
    (basis_a, small_a), (basis_b, small_b) = _factors(a), _factors(b)
    product = small_a @ small_b.T
    squares, left = torch.linalg.eigh(product @ product.T)
    rank = min(len(a) - 1, len(b) - 1, a.shape[1])
    singular, left = squares[-rank:].clamp(min=0).sqrt(), left[:, -rank:]
    right = product.T @ left * torch.where(singular > 1e-8 * singular.max(), 1 / singular, 0)
    value = shift.square().sum() + a.square().sum() + b.square().sum() - 2 * singular.sum()

    def influence(side: Tensor, towards: Tensor, vectors: Tensor) -> Tensor:
        n = len(side)
        own = 2 * (n - 1) ** 0.5 * (side @ towards) + n * (side.square().sum(1) - vectors.square() @ singular)
        return own - own.mean()

    return float(value), influence(a, shift, basis_a @ left), influence(b, -shift, basis_b @ right)


def _factors(side: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) as the product of orthonormal columns and something no taller than d."""
    if len(side) <= side.shape[1]:
        return torch.eye(len(side), dtype=side.dtype), side
    basis, small = torch.linalg.qr(side)
    return basis, small


def _variance(influence: Tensor) -> float:
    """Variance of an estimate that is moved by influence / n a picture."""
    return float(influence.square().sum()) / (len(influence) * (len(influence) - 1))


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """Unbiased squared MMD of features (n, d) and (k, d) with kernel (x.y/d + 1)^3 (eq. 61; Binkowski et al. 2018).

    Its mean is the same for any number of pictures, and it may be slightly negative for two sets that are alike.
    """
    a, b = two_sets(features, others, at_least=2)
    return _among(kernel(a, a)) + _among(kernel(b, b)) - 2 * float(kernel(a, b).mean())


def estimate_kernel_distance(features: Tensor, others: Tensor) -> Estimate:
    """`kernel_distance` and all distances within 1.96 of their own standard errors of it (eqs. 61-64).

    The standard error grows with the distance supposed, so that the interval is right for sets far apart, near each
    other and equal alike (benchmarks/coverage.py). Both ends may be below zero, where no true distance lies: then the
    sets are even more alike than two sets from one source mostly are. Four pictures a side are needed.
    """
    a, b = two_sets(features, others, at_least=4)
    value, first, second, trace = _kernel_moments(a, b)
    count = min(len(a), len(b))
    low, high = _interval(value, second, _slope(value, first, second, trace), student_quantile(count - 1))
    return Estimate(value, low, high, count)


def _kernel_moments(a: Tensor, b: Tensor) -> tuple[float, float, float, float]:
    """The distance, both terms of its variance without bias (eq. 62), and tr Sigma."""
    among_a, among_b, between = kernel(a, a), kernel(b, b), kernel(a, b)
    n, k = len(a), len(b)
    value = _among(among_a) + _among(among_b) - 2 * float(between.mean())
    trace = _trace(among_a) / n + _trace(among_b) / k
    of_a, of_b, crossed = _energy(among_a), _energy(among_b), _cross_energy(between)
    second = 2 * of_a / (n * (n - 1)) + 2 * of_b / (k * (k - 1)) + 4 * crossed / (n * k)
    first = 4 * float(_witness(among_a, between).var() / n + _witness(among_b, between.T).var() / k)
    first -= 4 * of_a / (n * (n - 2)) + 4 * of_b / (k * (k - 2)) + 8 * crossed / (n * k)
    return value, first, max(second, 0.0), trace


def _interval(value: float, second: float, slope: float, z: float) -> tuple[float, float]:
    """All d with (value - d)^2 <= z^2 (second + slope d); below zero the variance is that of equal sets (eq. 64)."""
    flat = z * math.sqrt(second)
    middle = value + z**2 * slope / 2
    root = z**2 * (slope * value + z**2 * slope**2 / 4 + second)
    low, high = (middle - math.sqrt(root), middle + math.sqrt(root)) if root >= 0 else (-1.0, -1.0)
    return low if low >= 0 else min(value - flat, 0.0), high if high >= 0 else value + flat


def _slope(value: float, first: float, second: float, trace: float) -> float:
    """How much the variance grows with the distance, drawn towards what chance alone would give (eq. 63)."""
    distance = max(value, 0.0)
    if distance == second == 0:
        return 0.0
    weight = 4 * second / (distance + math.sqrt(second))
    by_chance = 2 * second / trace if trace > 0 else 0.0
    return (max(first, 0.0) + weight * by_chance) / (distance + weight)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y/d + 1)^3 of features (n, d) and (k, d) -> (n, k)."""
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return (base * base).mul_(base)


def _among(values: Tensor) -> float:
    """Mean of a kernel matrix (n, n) without its diagonal."""
    return float(values.sum() - values.diagonal().sum()) / (len(values) * (len(values) - 1))


def _trace(values: Tensor) -> float:
    """Variance of a picture in the kernel's space."""
    return float(values.diagonal().mean()) - _among(values)


def _witness(among: Tensor, between: Tensor) -> Tensor:
    """How much liker each picture is to its own side: (n,); by n - 2, so that its own kernel mean has weight one."""
    return (among.sum(1) - among.diagonal()) / (len(among) - 2) - between.mean(1)


def _energy(values: Tensor) -> float:
    """Unbiased |C|^2 of the covariance C in the kernel's space, of U-centred values (Székely & Rizzo 2014, eq. 3.2)."""
    n, flat, diagonal = len(values), values.flatten(), values.diagonal()
    rows = values.sum(1) - diagonal
    squares = float(flat @ flat - diagonal @ diagonal)
    return (squares - 2 * float(rows @ rows) / (n - 2) + float(rows.sum()) ** 2 / ((n - 1) * (n - 2))) / (n * (n - 3))


def _cross_energy(values: Tensor) -> float:
    """Unbiased <C1, C2> of the covariances of two sides, of values (n, k) between them, centred by rows and columns."""
    n, k = values.shape
    flat, rows, columns = values.flatten(), values.mean(1), values.mean(0)
    centred = flat @ flat - k * rows @ rows - n * columns @ columns + n * k * rows.mean() ** 2
    return float(centred) / ((n - 1) * (k - 1))
