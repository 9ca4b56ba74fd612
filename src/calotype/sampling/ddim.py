"""DDIM: the family of steps between the deterministic one and the exact posterior."""

from __future__ import annotations

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
    """x_s = a_s x0_hat + sqrt(b_s^2 - var) eps_hat + sqrt(var) noise, var = eta^2 b_s^2 (1 - e^(-2h)).

    Song et al. 2021 (DDIM), eqs. 12 and 16, for any process. eta = 0 needs no noise (on a rectified flow it is the
    Euler step); eta = 1 is the posterior q(x_s given x_t, x0_hat) at any stride. ValueError if eta > 0 lacks noise.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    eps_hat = (x_t - now.a * x0_hat) / now.b
    var = eta**2 * then.b**2 * (1 - decay(now, then) ** 2)
    x_next = then.a * x0_hat + math.sqrt(max(then.b**2 - var, 0.0)) * eps_hat
    return (x_next + math.sqrt(var) * fresh(noise, x_t) if var > 0 else x_next), memory
