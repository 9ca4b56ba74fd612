"""Which t training visits: a density over levels, drawn by its quantile function so that the caller owns randomness."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.process.schedule import as_float64

Density = Literal["uniform", "logit-normal", "log-normal", "folded-normal"]


def check_density(density: str, *, loc: float | None = None, scale: float | None = None) -> None:
    """Refuse (UserError) an unknown name, a setting the density does not have, and a scale that is not above 0."""
    if density not in QUANTILES:
        raise UserError(f"unknown noise density '{density}'", nearest(density, QUANTILES))
    for name in _given(loc, scale):
        if name not in inspect.signature(QUANTILES[density]).parameters:
            raise UserError(f"the {density} density has no {name}", "leave it out")
    if scale is not None and not scale > 0:
        raise UserError(f"the scale of a noise density is {scale!r}", "it must be above 0")


def sample_t(
    process: Any, u: Tensor, density: Density | None = None, *, loc: float | None = None, scale: float | None = None
) -> Tensor:
    """Training levels from uniform draws u (b,) in [0, 1]: int64 1 ... T for tables, else float64 in [t_min, t_max].

    With n = Phi^-1(u) (eq. 24): uniform: t evenly. logit-normal: share of the range = sigmoid(loc + scale n) (Esser
    et al. 2024; 0, 1). log-normal: ln sigma = loc + scale n, sigma = b/a (Karras et al. 2022; -1.2, 1.2), cut to the
    range. folded-normal: noise_rate = |scale n|, the part above the noisiest level left out (the seed's; 0.5: with 0.3
    only a fourteenth of a percent lies above .95). t rises with u, up to t_max. The default density is the family's.
    """
    density = process.default_density if density is None else density
    check_density(density, loc=loc, scale=scale)
    return QUANTILES[density](process, as_float64(u), **_given(loc, scale))


def _given(loc: float | None, scale: float | None) -> dict[str, float]:
    return {name: value for name, value in (("loc", loc), ("scale", scale)) if value is not None}


def _uniform(process: Any, u: Tensor) -> Tensor:
    if process.num_train_steps is not None:
        return (u * process.num_train_steps).long().clamp(max=process.num_train_steps - 1) + 1
    return process.t_min + u * (process.t_max - process.t_min)


def _logit_normal(process: Any, u: Tensor, loc: float = 0.0, scale: float = 1.0) -> Tensor:
    return _uniform(process, torch.sigmoid(loc + scale * torch.special.ndtri(u)))


def _log_normal(process: Any, u: Tensor, loc: float = -1.2, scale: float = 1.2) -> Tensor:
    return _at(process, -(loc + scale * torch.special.ndtri(u)))


def _folded_normal(process: Any, u: Tensor, scale: float = 0.5) -> Tensor:
    """noise_rate^2 = b^2/(a^2 + b^2) of unit variance; |n| has the quantile sqrt(2) erfinv(u)."""
    noisiest = torch.sigmoid(-2 * process.log_snr(torch.tensor(process.t_max, dtype=torch.float64))).sqrt()
    width = scale * 2**0.5
    noise_rate = (width * torch.erfinv(u * torch.erf(noisiest / width))).clamp(max=noisiest)
    return _at(process, torch.log1p(-(noise_rate**2)) / 2 - torch.log(noise_rate))


def _at(process: Any, log_snr: Tensor) -> Tensor:
    """The level of this log_snr, at least t_min and whole for tables; `t_from_log_snr` ends at t_max."""
    t = process.t_from_log_snr(log_snr).clamp(min=process.t_min)
    return t if process.num_train_steps is None else t.round().long()


QUANTILES: dict[str, Callable[..., Tensor]] = {
    "uniform": _uniform,
    "logit-normal": _logit_normal,
    "log-normal": _log_normal,
    "folded-normal": _folded_normal,
}
