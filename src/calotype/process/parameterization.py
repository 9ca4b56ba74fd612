"""What a network predicts, and the way from there to x0_hat. With a = signal_rate, b = noise_rate at t:

eps; x0; v = a eps - b x0 (Salimans & Ho 2022); flow u = eps - x0 (Lipman et al. 2023).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.process.forward import broadcast

Parameterization = Literal["eps", "x0", "v", "flow"]


def check_parameterization(parameterization: str, process: Any) -> None:
    """Refuse an unknown name, and eps where the noisiest level has no signal: (x_t - b eps)/a is undefined there."""
    if parameterization not in get_args(Parameterization):
        known = get_args(Parameterization)
        raise UserError(f"unknown parameterization '{parameterization}'", nearest(parameterization, known))
    if parameterization == "eps" and float(process.signal_rate(torch.tensor(process.t_max))) == 0:
        raise UserError(
            f"eps-prediction cannot give x0 at t = {process.t_max:g}, where signal_rate is 0", "predict v or x0"
        )


def target(parameterization: Parameterization, process: Any, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What the network should say at t, shaped like x0: eps, x0, a eps - b x0, or eps - x0."""
    if parameterization == "eps":
        return eps
    if parameterization == "x0":
        return x0
    if parameterization == "flow":
        return eps - x0
    if parameterization == "v":
        a, b = _rates(process, t, x0)
        return a * eps - b * x0
    raise UserError(
        f"unknown parameterization '{parameterization}'", nearest(parameterization, get_args(Parameterization))
    )


def x0_from_prediction(
    parameterization: Parameterization, process: Any, x_t: Tensor, t: Tensor, prediction: Tensor
) -> Tensor:
    """x0_hat (b, ...) from a prediction at x_t:

    eps: (x_t - b eps)/a; x0: itself; v: (a x_t - b v)/(a^2 + b^2); flow: (x_t - b u)/(a + b).
    Raises ValueError for eps at a = 0.
    """
    if parameterization == "x0":
        return prediction
    a, b = _rates(process, t, x_t)
    if parameterization == "eps":
        if bool((a == 0).any()):
            raise ValueError("x0 is undefined from eps where signal_rate is 0")
        return (x_t - b * prediction) / a
    if parameterization == "v":
        return (a * x_t - b * prediction) / (a * a + b * b)
    if parameterization == "flow":
        return (x_t - b * prediction) / (a + b)
    raise UserError(
        f"unknown parameterization '{parameterization}'", nearest(parameterization, get_args(Parameterization))
    )


def eps_from_x0(process: Any, x_t: Tensor, t: Tensor, x0_hat: Tensor) -> Tensor:
    """eps_hat = (x_t - a x0_hat)/b, (b, ...). Raises ValueError at t = 0, where there is no noise to find."""
    a, b = _rates(process, t, x_t)
    if bool((b == 0).any()):
        raise ValueError("eps is undefined where noise_rate is 0")
    return (x_t - a * x0_hat) / b


def _rates(process: Any, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.as_tensor(t)
    return broadcast(process.signal_rate(t), like), broadcast(process.noise_rate(t), like)
