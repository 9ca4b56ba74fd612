"""Ancestral sampling: draw from the exact posterior, at any stride."""

import math
from typing import Any, Literal, get_args

from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.core.types import Denoiser
from calotype.sampling.levels import decay, estimate, fresh, from_to

Variance = Literal["small", "large"]


def ddpm_step(
    denoiser: Denoiser,
    process: Any,
    x_t: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    cond: Any = None,
    noise: Tensor | None = None,
    memory: Any = None,
    variance: Variance = "small",
) -> tuple[Tensor, Any]:
    """A draw from q(x_s given x_t, x0_hat) for any s < t, eq. 26 (Ho et al. 2020, eqs. 6-7, 11; any stride).

    mean = a_s x0_hat + (a b_s^2)/(a_s b^2) (x_t - a x0_hat), h = log_snr_s - log_snr_t. The small variance,
    b_s^2 (1 - e^(-2h)), is q's own; the large one, b^2 (1 - e^(-2h)) (1 - a^2/a_s^2 if variance-preserving, eq. 27),
    is the other choice for p. The landing on t = 0 adds no noise. Raises ValueError without noise elsewhere.
    """
    if variance not in get_args(Variance):
        raise UserError(f"unknown variance '{variance}'", nearest(str(variance), get_args(Variance)))
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    kept = decay(now, then)
    mean = then.a * x0_hat + (kept * then.b / now.b) * (x_t - now.a * x0_hat)
    if not then.b:
        return mean, memory
    rate = {"small": then.b, "large": now.b}[variance]
    return mean + rate * math.sqrt(1 - kept**2) * fresh(noise, x_t), memory
