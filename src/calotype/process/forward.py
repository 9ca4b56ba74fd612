"""What any process allows: noising, and the exact posterior between two of its levels."""

import math
from typing import Any

import torch
from torch import Tensor


def broadcast(rate: Tensor, like: Tensor) -> Tensor:
    """A rate, () or (b,), in the dtype and on the device of `like` (b, ...), shaped to multiply it row by row."""
    rate = rate.to(like.dtype).to(like.device)
    return rate.reshape(-1, *[1] * (like.ndim - 1)) if rate.ndim else rate


def add_noise(process: Any, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = a x0 + b eps (eq. 1), a draw from q(x_t given x0) for eps ~ N(0, I). x0, eps (b, ...), t () or (b,)."""
    t = torch.as_tensor(t)
    return broadcast(process.signal_rate(t), x0) * x0 + broadcast(process.noise_rate(t), x0) * eps


def noise_angle(process: Any, t: Tensor) -> Tensor:
    """How noisy a level is, whatever the family: (2 / pi) arctan(b / a), 0 clean and 1 pure noise (eq. 54), like t."""
    t = torch.as_tensor(t)
    return torch.atan2(process.noise_rate(t), process.signal_rate(t)) * (2 / math.pi)


def posterior(process: Any, x0: Tensor, x_t: Tensor, t: Tensor, t_next: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s given x_t, x0) for any level s = t_next < t (Ho et al. 2020, eqs. 6-7, any stride).

    mean = a_s x0 + (a b_s^2 / (a_s b^2)) (x_t - a x0) (eq. 13),
    var = (b_s^2 / b^2)(b^2 - (a/a_s)^2 b_s^2) = -b_s^2 expm1(2 (log_snr_t - log_snr_s)) (eq. 14).
    The mean is shaped like x_t, the variance broadcasts against it. Raises ValueError unless t_next < t.
    """
    t, t_next = torch.as_tensor(t), torch.as_tensor(t_next)
    if bool((t_next >= t).any()):
        raise ValueError(f"the posterior goes to less noise: t_next {t_next.tolist()} is not below t {t.tolist()}")
    a, b = process.signal_rate(t), process.noise_rate(t)
    a_s, b_s = process.signal_rate(t_next), process.noise_rate(t_next)
    var = -(b_s**2) * torch.expm1(2 * (process.log_snr(t) - process.log_snr(t_next)))
    of_x_t = a * b_s**2 / (a_s * b**2)
    mean = broadcast(a_s - of_x_t * a, x_t) * x0 + broadcast(of_x_t, x_t) * x_t
    return mean, broadcast(var, x_t)
