"""Euler's step of the probability-flow ODE."""

from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.sampling.levels import estimate, from_to


def euler_step(
    denoiser: Denoiser,
    process: Any,
    x_t: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    cond: Any = None,
    noise: Tensor | None = None,
    memory: Any = None,
) -> tuple[Tensor, Any]:
    """x_s = x_t + (a_s - a) x0_hat + (b_s - b) eps_hat, eq. 30: both rates move on, both estimates stay.

    On a rectified flow x_t + (s - t) u_hat with the velocity u_hat = eps_hat - x0_hat (Liu et al. 2023). First order;
    the landing at t = 0 gives x0_hat.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    eps_hat = (x_t - now.a * x0_hat) / now.b
    return x_t + (then.a - now.a) * x0_hat + (then.b - now.b) * eps_hat, memory
