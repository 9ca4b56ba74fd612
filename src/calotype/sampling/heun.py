"""Heun's second-order step of the probability-flow ODE: two network passes, no memory."""

from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.process import RectifiedFlow
from calotype.sampling.levels import estimate, from_to


def heun_step(
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
    """Euler to t_next, then again with the mean of both slopes (eq. 33; Karras et al. 2022, algorithm 1).

    With y = x_t/a and sigma = b/a: dy/dsigma = (y - x0_hat)/sigma. On a rectified flow, in t itself:
    dx/dt = (x_t - x0_hat)/t. The landing at t = 0 (slope 0/0) and a start without signal (y infinite) take one
    first-order step, which is exact where x0_hat does not change.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    # Euler in either variable is x_s = a_s x0_hat + b_s eps_hat.
    x_euler = then.a * x0_hat + then.b * (x_t - now.a * x0_hat) / now.b
    scale, scale_then = (1.0, 1.0) if isinstance(process, RectifiedFlow) else (now.a, then.a)
    if not (scale and then.b):
        return x_euler, memory
    x0_hat_then = estimate(denoiser, x_euler, t_next, cond)
    slope = (x_t / scale - x0_hat) / (now.b / scale)
    slope_then = (x_euler / scale_then - x0_hat_then) / (then.b / scale_then)
    width = then.b / scale_then - now.b / scale
    return scale_then * (x_t / scale + width * (slope + slope_then) / 2), memory
