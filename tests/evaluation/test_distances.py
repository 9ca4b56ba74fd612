"""Distances agree with other ways to compute them, and see what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from calotype.evaluation import frechet_distance, kernel_distance


def draws(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + seed


@pytest.mark.parametrize(("n", "k", "d"), [(60, 50, 7), (20, 30, 40)])
def test_frechet_distance_is_that_of_the_matrix_square_root(n: int, k: int, d: int) -> None:
    a, b = draws(n, d, 1), draws(k, d, 2)
    first, second = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    root = np.real(linalg.sqrtm(first @ second + (n < d) * 1e-12 * np.eye(d)))
    mean = float((a.double().mean(0) - b.double().mean(0)).square().sum())
    expected = mean + np.trace(first) + np.trace(second) - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4 if n < d else 1e-9)


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
    assert kernel_distance(torch.randn(10, 4, generator=generator), torch.randn(10, 4, generator=generator) + 2) > 1


def test_sets_that_cannot_be_compared_are_refused() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
            distance(torch.zeros(2, 3), torch.zeros(2, 4))
        with pytest.raises(ValueError, match="two pictures"):
            distance(torch.zeros(1, 3), torch.zeros(2, 3))
