"""How much the error at each level counts: w(t) of the training loss (eq. 20)."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.process.parameterization import Parameterization, check_parameterization, mixture
from calotype.process.schedule import as_float64
from calotype.process.training_levels import check_density

Weighting = Literal["constant", "min-snr", "elbo", "edm"]


def check_weighting(weighting: str, parameterization: str, process: Any, density: str | None = None) -> None:
    """Refuse (UserError) unknown names, an undefined prediction, and the ELBO under any density but the uniform.

    `density` None is the family's own, as in `sample_t`.
    """
    _check_name(weighting)
    check_parameterization(parameterization, process)
    density = process.default_density if density is None else density
    check_density(density)
    if weighting == "elbo" and density != "uniform":
        raise UserError(
            f"the ELBO is an expectation over uniform levels, but training draws them {density}",
            "choose the uniform density or another weighting",
        )


def loss_weight(
    process: Any, weighting: Weighting, parameterization: Parameterization, t: Tensor, *, gamma: float = 5.0
) -> Tensor:
    """w(t) on the squared error of the prediction, float64 shaped like t; t in [t_min, t_max], whole for tables.

    constant: 1. The others weigh the error of x0 and are carried over by |d x0 / d prediction|^2 = b^2/(a q - b p)^2:
    min-snr (eq. 21): min(SNR, gamma), SNR = a^2/b^2 (Hang et al. 2023). elbo (eq. 22): nats a level; the bound is T
    times their mean for tables (Ho et al. 2020), their integral over t otherwise (Kingma et al. 2021). edm (eq. 23):
    (1 + sigma^2)/sigma^2 = 1 + SNR (Karras et al. 2022, sigma_data = 1), so that an edm-prediction weighs 1.
    Raises UserError for unknown names, ValueError for a fractional t of a table.
    """
    _check_name(weighting)
    t = torch.as_tensor(t)
    if process.num_train_steps is not None and t.is_floating_point() and bool((t != t.round()).any()):
        raise ValueError(f"loss weights of a table are defined at whole t, not {t.tolist()}")
    a, b = process.signal_rate(t), process.noise_rate(t)
    p, q = mixture(parameterization, a, b)
    snr = (a / b) ** 2
    closed = {"min-snr": snr.clamp(max=gamma), "edm": 1 + snr}
    if weighting == "elbo":
        of_x0 = _elbo(process, t)
    elif weighting in closed:
        of_x0 = closed[weighting]
    else:
        return torch.ones_like(a)
    return of_x0 * (b / (a * q - b * p)) ** 2


def _elbo(process: Any, t: Tensor) -> Tensor:
    """Weight of |x0_hat - x0|^2 in the bound (eq. 22): -1/2 dSNR/dt; for tables (SNR(t - 1) - SNR(t))/2,

    and at t = 1 the decoder N(x0_hat, b_1^2 I), 1/(2 b_1^2).
    """
    if process.num_train_steps is not None:
        before, decoder = _snr(process, t - 1), process.noise_rate(t) ** -2
        return torch.where(before.isinf(), decoder, before - _snr(process, t)) / 2
    with torch.enable_grad():
        t = as_float64(t).detach().clamp(max=process.t_max).requires_grad_()
        (slope,) = torch.autograd.grad(_snr(process, t).sum(), t)
    return -slope / 2


def _snr(process: Any, t: Tensor) -> Tensor:
    return (process.signal_rate(t) / process.noise_rate(t)) ** 2


def _check_name(weighting: str) -> None:
    known = get_args(Weighting)
    if weighting not in known:
        raise UserError(f"unknown weighting '{weighting}'", nearest(weighting, known))
