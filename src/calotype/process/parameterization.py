"""What a network predicts, and the way from there to x0_hat.

Every parameterisation is a mixture F = p x0 + q eps. Together with x_t = a x0 + b eps, two equations in two unknowns:
x0 = (q x_t - b F)/(a q - b p).
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.process.forward import broadcast

Parameterization = Literal["eps", "x0", "v", "flow", "edm"]


def check_parameterization(parameterization: str, process: Any) -> None:
    """Refuse an unknown name, and eps where the noisiest level has no signal: (x_t - b eps)/a is undefined there."""
    _check_name(parameterization)
    if parameterization == "eps" and not process.signal_rate(torch.tensor(process.t_max)):
        raise UserError(
            f"eps-prediction cannot give x0 at t = {process.t_max:g}, where signal_rate is 0", "predict v or x0"
        )


def mixture(parameterization: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(p, q) of F = p x0 + q eps at signal_rate a and noise_rate b, float64 shaped like them:

    eps (0, 1); x0 (1, 0); v (-b, a), eq. 15 (Salimans & Ho 2022); flow (-1, 1), eq. 16 (Lipman et al. 2023);
    edm (b, -a)/sqrt(a^2 + b^2), eq. 17: the F of Karras et al. 2022, eq. 7, for sigma_data = 1.
    """
    _check_name(parameterization)
    zero, one, norm = torch.zeros_like(a), torch.ones_like(a), torch.hypot(a, b)
    return {"eps": (zero, one), "x0": (one, zero), "v": (-b, a), "flow": (-one, one), "edm": (b / norm, -a / norm)}[
        parameterization
    ]


def target(parameterization: Parameterization, process: Any, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What the network should say at t, shaped like x0 (eqs. 15-17): F = p x0 + q eps."""
    p, q = mixture(parameterization, *_rates(process, t))
    return broadcast(p, x0) * x0 + broadcast(q, x0) * eps


def x0_from_prediction(
    parameterization: Parameterization, process: Any, x_t: Tensor, t: Tensor, prediction: Tensor
) -> Tensor:
    """x0_hat (b, ...) from a prediction F at x_t (eq. 18): (q x_t - b F)/(a q - b p), which is for

    eps: (x_t - b F)/a; x0: F; v: (a x_t - b F)/(a^2 + b^2); flow: (x_t - b F)/(a + b);
    edm: a x_t/(a^2 + b^2) + b F/sqrt(a^2 + b^2). Raises ValueError for eps at a = 0.
    """
    a, b = _rates(process, t)
    p, q = mixture(parameterization, a, b)
    if parameterization == "x0":
        return prediction
    if parameterization == "eps" and not a.all():
        raise ValueError("x0 is undefined from eps where signal_rate is 0")
    return (broadcast(q, x_t) * x_t - broadcast(b, x_t) * prediction) / broadcast(a * q - b * p, x_t)


def eps_from_x0(process: Any, x_t: Tensor, t: Tensor, x0_hat: Tensor) -> Tensor:
    """eps_hat = (x_t - a x0_hat)/b, (b, ...) (eq. 19). ValueError at t = 0, where there is no noise to find."""
    a, b = _rates(process, t)
    if not b.all():
        raise ValueError("eps is undefined where noise_rate is 0")
    return (x_t - broadcast(a, x_t) * x0_hat) / broadcast(b, x_t)


def _rates(process: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.as_tensor(t)
    return process.signal_rate(t), process.noise_rate(t)


def _check_name(parameterization: str) -> None:
    known = get_args(Parameterization)
    if parameterization not in known:
        raise UserError(f"unknown parameterization '{parameterization}'", nearest(parameterization, known))
