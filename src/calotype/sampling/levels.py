"""What every step reads: the rates at a level as plain float64 numbers, and one call of the denoiser."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calotype.core.types import Denoiser

DEVICES_WITHOUT_FLOAT64 = ("mps",)


@dataclass(frozen=True)
class Level:
    """signal_rate a, noise_rate b and log_snr = ln(a/b) at one t (eq. 2)."""

    a: float
    b: float
    log_snr: float


def level(process: Any, t: Tensor | float) -> Level:
    """The rates at scalar t, in double precision."""
    t = torch.as_tensor(t)
    return Level(float(process.signal_rate(t)), float(process.noise_rate(t)), float(process.log_snr(t)))


def from_to(process: Any, t: Tensor | float, t_next: Tensor | float) -> tuple[Level, Level]:
    """Both ends of a step; ValueError unless it goes to less noise."""
    now, then = level(process, t), level(process, t_next)
    if not then.log_snr > now.log_snr:
        raise ValueError(f"a step goes to less noise: t_next {float(t_next):g} is not below t {float(t):g}")
    return now, then


def estimate(denoiser: Denoiser, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
    """x0_hat = D(x_t, t, cond), with scalar t given to every row (b,), in double precision where there is any."""
    dtype = torch.float32 if x_t.device.type in DEVICES_WITHOUT_FLOAT64 else torch.float64
    return denoiser(x_t, torch.full((len(x_t),), float(t), dtype=dtype, device=x_t.device), cond)


def decay(now: Level, then: Level) -> float:
    """e^(-h) with h = log_snr_s - log_snr_t > 0: (a b_s)/(a_s b). 0 on the landing, and from a level without signal."""
    return (now.a * then.b) / (then.a * now.b)


def fresh(noise: Tensor | None, like: Tensor) -> Tensor:
    """The noise a stochastic step was given; without it, an error rather than a silent deterministic step."""
    if noise is None:
        raise ValueError(
            "this step is stochastic: give noise, e.g. sample(..., noise=lambda i, x_t: torch.randn_like(x_t))"
        )
    if noise.shape != like.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, x_t {tuple(like.shape)}")
    return noise
