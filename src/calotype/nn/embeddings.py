"""Numbers as vectors."""

import math

import torch
from torch import Tensor


def sinusoidal_embedding(noise_levels: Tensor, emb_dim: int = 32, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of a scalar at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    e(u) = [cos(f_1 u), ..., cos(f_m u), sin(f_1 u), ..., sin(f_m u)], f_k = max_period^(-(k-1)/m), m = emb_dim / 2.
    noise_levels (b,) -> (b, emb_dim), float32. Computed once from the frequencies: none is divided twice.
    """
    half = emb_dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=noise_levels.device) / half
    angles = noise_levels.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
