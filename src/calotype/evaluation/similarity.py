"""The one measure of likeness that the scores share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def centred_cosine(vectors: Tensor, others: Tensor, centre: Tensor) -> Tensor:
    """cos(x_i - m, y_j - m): vectors (n, d), others (k, d), centre m (d,) -> (n, k) float32 in [-1, 1].

    Feature vectors share a large mean that says "a picture"; without it what tells pictures apart decides. A vector
    that equals the centre is like nothing: 0.
    """
    if vectors.ndim != 2 or others.ndim != 2 or vectors.shape[1] != others.shape[1]:
        raise ValueError(f"vectors (n, d) and (k, d) are needed, not {tuple(vectors.shape)}, {tuple(others.shape)}")
    left = normalize(vectors.float() - centre.float(), dim=1)
    right = normalize(others.float() - centre.float(), dim=1)
    return (left @ right.T).clamp(-1, 1)


def share_interval(
    shares: Tensor, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (Efron 1979) of the mean of independent shares (n,): its central `level` quantiles.

    Drawn from its own generator, so that the same shares always give the same interval.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(shares), (resamples, len(shares)), generator=generator)
    means = shares.double()[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high
