"""Distances agree with other ways to compute them, and their intervals with what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from calotype.core.errors import UserError
from calotype.evaluation import estimate_frechet, estimate_kernel_distance, frechet_distance, kernel_distance
from calotype.evaluation.distances import _cross_energy, _energy, _interval, _kernel_moments, _with_influence


def draws(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.randn(
        d, d, generator=generator, dtype=torch.float64
    )
    return mixed / d**0.5 + 0.1 * seed


@pytest.mark.parametrize(("n", "k", "d"), [(60, 50, 7), (200, 180, 24), (64, 64, 64)])
def test_frechet_distance_is_that_of_the_matrix_square_root(n: int, k: int, d: int) -> None:
    a, b = draws(n, d, 1), draws(k, d, 2)
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    mean = float((a.mean(0) - b.mean(0)).square().sum())
    expected = mean + np.trace(first) + np.trace(second) - 2 * np.trace(np.real(linalg.sqrtm(first @ second)))
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)
    assert estimate_frechet(a, b).at_count.value == pytest.approx(expected, abs=1e-6)


def test_distances_agree_with_torchmetrics() -> None:
    a, b = draws(150, 32, 1), draws(150, 32, 2).relu()
    expected = _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert frechet_distance(a, b) == pytest.approx(float(expected), abs=1e-6)
    for found in (kernel_distance(a, b), estimate_kernel_distance(a, b).value):
        assert found == pytest.approx(float(poly_mmd(a, b)), abs=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features() -> None:
    """In the space that the pictures span, nothing is lost."""
    a, b = draws(20, 40, 1), draws(30, 40, 2)
    basis = torch.linalg.qr(torch.cat([a, b]).T)[0]
    turned = basis.T @ torch.linalg.qr(draws(basis.shape[1], basis.shape[1], 3))[0]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a @ turned.T, b @ turned.T), rel=1e-9)
    eigenvalues = np.linalg.eigvals(np.cov(a.numpy().T) @ np.cov(b.numpy().T)).real
    largest = np.sort(eigenvalues)[-19:]  # 20 pictures have 19 directions
    mean = float((a.mean(0) - b.mean(0)).square().sum())
    spread = np.trace(np.cov(a.numpy().T)) + np.trace(np.cov(b.numpy().T))
    assert frechet_distance(a, b) == pytest.approx(mean + spread - 2 * np.sqrt(largest).sum(), rel=1e-8)


def test_kernel_distance_by_hand() -> None:
    a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [2.0]])
    among_a, among_b = (1 * 3 + 1) ** 3, (0 * 2 + 1) ** 3
    between = ((0 + 1) ** 3 + (2 + 1) ** 3 + (0 + 1) ** 3 + (6 + 1) ** 3) / 4
    assert kernel_distance(a, b) == pytest.approx(among_a + among_b - 2 * between)


def test_kernel_distance_of_like_sets_is_zero_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    found = [kernel_distance(*torch.randn(2, 10, 4, generator=generator)) for _ in range(400)]
    spread = float(np.std(found) / len(found) ** 0.5)
    assert abs(float(np.mean(found))) < 3 * spread


def test_energies_are_unbiased() -> None:
    """Of features x with the kernel x.y: the covariance is that of x itself, with or without a mean."""
    generator, wide = torch.Generator().manual_seed(0), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    among, between = [], []
    for _ in range(1000):
        a, b = 3 + torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
        among.append(_energy(a * wide @ (a * wide).T))
        between.append(_cross_energy(a * wide @ b.T))
    for found, expected in ((among, wide.pow(4).sum()), (between, wide.square().sum())):
        spread = float(np.std(found) / len(found) ** 0.5)
        assert float(np.mean(found)) == pytest.approx(float(expected), abs=3 * spread)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_variance_of_the_kernel_distance_is_unbiased(shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(800):
        a = torch.randn(16, 24, generator=generator, dtype=torch.float64)
        found.append(_kernel_moments(a, torch.randn(10, 24, generator=generator, dtype=torch.float64) + shift))
    value, first, second, trace = np.array(found).T
    assert float(np.mean(first + second)) == pytest.approx(float(value.var()), rel=0.15)
    biased = value + trace  # the squared distance of the two means found, which is never negative
    assert biased.min() > 0
    assert shift > 0 or float(trace.mean()) == pytest.approx(float(biased.mean()), rel=0.05)


def test_the_interval_holds_the_distances_within_two_errors_of_the_value() -> None:
    low, high = _interval(5.0, 1.0, 0.5, 1.96)
    for end in (low, high):
        assert (5 - end) ** 2 == pytest.approx(1.96**2 * (1 + 0.5 * end))
    assert _interval(1.0, 1.0, 0.5, 1.96)[0] == pytest.approx(1 - 1.96)
    assert _interval(-3.0, 1.0, 0.1, 1.96) == pytest.approx((-4.96, -1.04))


def _weighted_frechet(a: Tensor, weights: Tensor, b: Tensor) -> Tensor:
    mean = weights @ a / weights.sum()
    correction = len(a) / (len(a) - 1)
    rows = (weights / weights.sum() * correction).sqrt()[:, None] * (a - mean)
    others = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    spread = rows.square().sum() + others.square().sum() - 2 * torch.linalg.svdvals(rows @ others.T)[: a.shape[1]].sum()
    return (mean - b.mean(0)).square().sum() + spread


@pytest.mark.parametrize(("n", "k", "d"), [(15, 20, 6), (15, 20, 25)])
def test_influences_are_the_derivatives_by_the_weights_of_the_pictures(n: int, k: int, d: int) -> None:
    a, b = draws(n, d, 1), draws(k, d, 2)
    value, of_a, of_b = _with_influence(a, b)
    for side, other, influence in ((a, b, of_a), (b, a, of_b)):
        weights = torch.full((len(side),), 1 / len(side), dtype=torch.float64)
        moved = []
        for i in range(len(side)):
            step = 1e-5 * (torch.eye(len(side), dtype=torch.float64)[i] - weights)
            up, down = (_weighted_frechet(side, weights + sign * step, other) for sign in (1, -1))
            moved.append(float(up - down) / 2e-5)
        assert float(_weighted_frechet(side, weights, other)) == pytest.approx(value, rel=1e-6)
        torch.testing.assert_close(influence, torch.tensor(moved, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_the_extrapolation_takes_most_of_the_bias_away() -> None:
    generator = torch.Generator().manual_seed(0)
    at_count, at_infinity = [], []
    for _ in range(40):
        found = estimate_frechet(*torch.randn(2, 200, 10, generator=generator))
        at_count.append(found.at_count.value)
        at_infinity.append(found.at_infinity.value)
    assert float(np.mean(at_count)) > 0.1
    assert abs(float(np.mean(at_infinity))) < float(np.mean(at_count)) / 5


def test_the_same_pictures_give_the_same_estimate() -> None:
    a, b = draws(31, 12, 1), draws(40, 12, 2)
    assert estimate_frechet(a, b) == estimate_frechet(a, b)
    assert estimate_frechet(a, b, seed=1).at_count.value == pytest.approx(estimate_frechet(a, b).at_count.value)
    assert estimate_frechet(a, b, seed=1).at_infinity != estimate_frechet(a, b).at_infinity


def test_pictures_that_are_all_the_same() -> None:
    ones, zeros = torch.ones(9, 3), torch.zeros(8, 3)
    apart = {"value": 7.0, "low": 7.0, "high": 7.0, "count": 8}
    assert estimate_kernel_distance(ones, zeros).plain() == pytest.approx(apart, abs=1e-6)
    alike = {"value": 0.0, "low": 0.0, "high": 0.0, "count": 4}
    assert estimate_kernel_distance(ones, ones[:4]).plain() == pytest.approx(alike, abs=1e-6)
    assert estimate_frechet(ones, zeros).at_infinity.plain() == {"value": 3.0, "low": 3.0, "high": 3.0, "count": 8}


def test_sets_that_cannot_be_compared_are_refused() -> None:
    for distance, fewest in (
        (frechet_distance, 2),
        (kernel_distance, 2),
        (estimate_frechet, 8),
        (estimate_kernel_distance, 4),
    ):
        with pytest.raises(ValueError, match=r"\(8, 3\), \(8, 4\)"):
            distance(torch.zeros(8, 3), torch.zeros(8, 4))
        with pytest.raises(ValueError, match=f"at least {fewest} pictures a side"):
            distance(torch.zeros(fewest - 1, 3), torch.zeros(9, 3))
        with pytest.raises(UserError, match="not all finite"):
            distance(torch.zeros(8, 3), torch.full((8, 3), torch.nan))
