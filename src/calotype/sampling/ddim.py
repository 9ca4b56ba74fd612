"""DDIM: the family of steps between the deterministic one and the exact posterior."""

import math
from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.sampling.levels import decay, estimate, fresh, from_to


def ddim_step(
    denoiser: Denoiser,
    process: Any,
    x_t: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    cond: Any = None,
    noise: Tensor | None = None,
    memory: Any = None,
    eta: float = 0.0,
) -> tuple[Tensor, Any]:
    """x_s = a_s x0_hat + b_s (sqrt(1 - share^2) eps_hat + share noise), share = eta sqrt(1 - e^(-2h)), eq. 28.

    h = log_snr_s - log_snr_t (Song et al. 2021, DDIM, eqs. 12 and 16, for any process). eta = 0 needs no noise (on a
    rectified flow it is the Euler step); eta = 1 is the posterior q(x_s given x_t, x0_hat) at any stride. ValueError
    for eta outside [0, 1], and if eta > 0 lacks noise anywhere but on the landing at t = 0, which adds none.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}: it lies between 0 (deterministic) and 1 (the posterior)")
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    eps_hat = (x_t - now.a * x0_hat) / now.b
    share = eta * math.sqrt(1 - decay(now, then) ** 2)
    x_next = then.a * x0_hat + then.b * math.sqrt(1 - share**2) * eps_hat
    deviation = then.b * share
    return (x_next + deviation * fresh(noise, x_t) if deviation else x_next), memory
