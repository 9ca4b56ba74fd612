"""DPM-Solver++: second-order multistep in log_snr on x0_hat, deterministic and stochastic."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.sampling.levels import Level, decay, estimate, fresh, from_to


@dataclass(frozen=True)
class Past:
    """What the multistep method remembers of the level before: its x0_hat and its log_snr."""

    x0_hat: Tensor
    log_snr: float


def dpmpp_2m_step(
    denoiser: Denoiser,
    process: Any,
    x_t: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    cond: Any = None,
    noise: Tensor | None = None,
    memory: Past | None = None,
) -> tuple[Tensor, Past]:
    """x_s = (b_s/b) x_t + a_s (1 - e^(-h)) D, h = log_snr_s - log_snr_t, eq. 31 (Lu et al. 2022, algorithm 2).

    D = x0_hat + (x0_hat - x0_hat_before)/(2r), r = h_before/h; on the first step and on the landing at t = 0, where h
    is infinite, D = x0_hat.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    x_next = (then.b / now.b) * x_t + then.a * (1 - decay(now, then)) * _extrapolated(x0_hat, now, then, memory)
    return x_next, Past(x0_hat, now.log_snr)


def dpmpp_2m_sde_step(
    denoiser: Denoiser,
    process: Any,
    x_t: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    cond: Any = None,
    noise: Tensor | None = None,
    memory: Past | None = None,
) -> tuple[Tensor, Past]:
    """x_s = (b_s/b) e^(-h) x_t + a_s (1 - e^(-2h)) D + b_s sqrt(1 - e^(-2h)) noise, eq. 32.

    D and h as in `dpmpp_2m_step`. The second-order solver of the reverse SDE (Lu et al. 2022, the SDE variant); its
    first step is the posterior. Raises ValueError without noise, save on the landing, which adds none.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    kept = decay(now, then)
    x_next = (then.b / now.b * kept) * x_t + then.a * (1 - kept**2) * _extrapolated(x0_hat, now, then, memory)
    if then.b:
        x_next = x_next + then.b * math.sqrt(1 - kept**2) * fresh(noise, x_t)
    return x_next, Past(x0_hat, now.log_snr)


def _extrapolated(x0_hat: Tensor, now: Level, then: Level, past: Past | None) -> Tensor:
    """D: x0_hat carried to the middle of the step along its last change; a past at log_snr = -inf weighs nothing."""
    if past is None or math.isinf(then.log_snr):
        return x0_hat
    half = (then.log_snr - now.log_snr) / (now.log_snr - past.log_snr) / 2
    return (1 + half) * x0_hat - half * past.x0_hat
