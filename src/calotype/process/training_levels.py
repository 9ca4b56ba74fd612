"""Which t training visits: a density over levels, drawn by its quantile function so that the caller owns randomness."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.process.gaussian import Process, VarianceExploding

Density = Literal["uniform", "logit-normal", "log-normal", "folded-normal"]


def sample_t(
    process: Process, u: Tensor, density: Density | None = None, *, loc: float | None = None, scale: float | None = None
) -> Tensor:
    """Training levels from uniform draws u (b,) in (0, 1): int64 1 ... T for tables, else float64 in [t_min, t_max].

    With n = Phi^-1(u), cut to the range: uniform: t evenly. logit-normal: t/t_max = sigmoid(loc + scale n) (Esser et
    al. 2024; 0, 1). log-normal: ln sigma = loc + scale n, sigma = b/a (Karras et al. 2022; -1.2, 1.2). folded-normal:
    noise_rate = |scale n| (the seed's; 0.3), the part above the noisiest level left out. The default is uniform, and
    log-normal for variance-exploding processes, whose t is not spread evenly.
    """
    if density is None:
        density = "log-normal" if isinstance(process, VarianceExploding) else "uniform"
    u = u.double()
    if density == "uniform":
        share = u
    elif density == "logit-normal":
        share = torch.sigmoid(
            (0.0 if loc is None else loc) + (1.0 if scale is None else scale) * torch.special.ndtri(u)
        )
    elif density == "log-normal":
        log_sigma = (-1.2 if loc is None else loc) + (1.2 if scale is None else scale) * torch.special.ndtri(u)
        return _settle(process, process.t_from_log_snr(-log_sigma))
    elif density == "folded-normal":
        return _folded_normal(process, u, 0.3 if scale is None else scale)
    else:
        raise UserError(f"unknown noise density '{density}'", nearest(density, get_args(Density)))
    if process.num_train_steps is not None:
        return (share * process.num_train_steps).floor().long().clamp(0, process.num_train_steps - 1) + 1
    return process.t_min + share * (process.t_max - process.t_min)


def _folded_normal(process: Process, u: Tensor, scale: float) -> Tensor:
    """noise_rate = |scale n|, given that it does not exceed the noisiest level's b/sqrt(a^2 + b^2)."""
    noisiest = torch.sigmoid(-2 * process.log_snr(torch.tensor(process.t_max, dtype=torch.float64))).sqrt()
    within_range = torch.special.erf(noisiest / (scale * 2**0.5))
    noise_rate = scale * torch.special.ndtri((1 + u * within_range) / 2)
    return _settle(process, process.t_from_log_snr(torch.log1p(-(noise_rate**2)) / 2 - torch.log(noise_rate)))


def _settle(process: Process, t: Tensor) -> Tensor:
    """Levels training can use: integers for tables, inside [t_min, t_max]."""
    t = t.clamp(process.t_min, process.t_max)
    return t if process.num_train_steps is None else t.round().long()
