"""Numbers as vectors."""

import math

import torch
from torch import Tensor


def sinusoidal_embedding(
    noise_levels: Tensor, emb_dim: int = 32, *, min_frequency: float = 1.0, max_frequency: float = 1000.0
) -> Tensor:
    """A level u in [0, 1] as waves of geometrically spaced frequencies, lowest first (eq. 25).

    e(u) = [sin(2 pi f_1 u), cos(2 pi f_1 u), ..., sin(2 pi f_m u), cos(2 pi f_m u)], m = emb_dim / 2.
    noise_levels (b,) -> (b, emb_dim), float32. ValueError for an odd or empty emb_dim.
    """
    if emb_dim < 2 or emb_dim % 2:
        raise ValueError(f"emb_dim is {emb_dim}: sines and cosines come in pairs")
    frequencies = torch.logspace(
        math.log10(min_frequency), math.log10(max_frequency), emb_dim // 2, device=noise_levels.device
    )
    angles = 2 * math.pi * noise_levels.float()[:, None] * frequencies
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(1)


def timestep_embedding(t: Tensor, emb_dim: int, max_period: float = 10_000.0) -> Tensor:
    """A timestep in [0, 1000] as waves, as the U-Net is told it (Vaswani et al. 2017, section 3.5; eq. 47).

    e(t) = [cos(f_1 t), ..., cos(f_m t), sin(f_1 t), ..., sin(f_m t)], f_k = max_period^(-(k-1)/m), m = emb_dim / 2.
    t (b,) -> (b, emb_dim), float32.
    """
    half = emb_dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
