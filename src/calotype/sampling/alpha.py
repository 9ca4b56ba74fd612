"""The seed's step, in the rates of the process that trained the denoiser."""

from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.sampling.levels import estimate, from_to


def alpha_step(
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
    """x_s = a_s x0_hat + (b_s/b) (x_t - a x0_hat), eq. 29: the noise found in x_t is kept, at its new rate.

    DDIM with eta = 0, in the letters of the seed: a = gamma = sqrt(1 - alpha^2), b = alpha. No noise is drawn.
    """
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, cond)
    return then.a * x0_hat + (then.b / now.b) * (x_t - now.a * x0_hat), memory
