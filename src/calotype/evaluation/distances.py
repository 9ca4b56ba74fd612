"""Distances between two sets of pictures, as distributions of feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features (n, d) and (k, d) (Heusel et al. 2017, eq. 6).

    Covariances are unbiased (n - 1). Computed from the singular values of the product of the centred matrices, which is
    exact for any n and d: the eigenvalues of C1 C2 are the squares of those of A B^T / sqrt((n - 1)(k - 1)). The
    estimate is biased upwards for few pictures: compare sets of one size only.
    """
    a, b = _checked(features, others)
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    spread = centred_a.square().sum() / (len(a) - 1) + centred_b.square().sum() / (len(b) - 1)
    overlap = torch.linalg.svdvals(centred_a @ centred_b.T).sum() / ((len(a) - 1) * (len(b) - 1)) ** 0.5
    return float((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * overlap)


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """Unbiased squared MMD of features (n, d) and (k, d) with kernel (x.y/d + 1)^3 (Binkowski et al. 2018, section 3).

    Its mean is the same for any number of pictures, and it may be slightly negative for two sets that are alike.
    """
    a, b = _checked(features, others)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / a.shape[1] + 1) ** 3

    def among(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(among(a) + among(b) - 2 * kernel(a, b).mean())


def _checked(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or others.ndim != 2 or features.shape[1] != others.shape[1]:
        raise ValueError(f"features (n, d) and (k, d) are needed, not {tuple(features.shape)}, {tuple(others.shape)}")
    if min(len(features), len(others)) < 2:
        raise ValueError("a distance needs two pictures on each side")
    return features.double(), others.double()
