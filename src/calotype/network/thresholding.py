"""Wrappers denoiser -> denoiser that keep x0_hat within the range of the data."""

import math
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.types import Denoiser


def dynamic_thresholding(x0: Tensor, percentile: float = 99.5, bound: float = 1.0) -> Tensor:
    """Tame the outliers of each sample by itself (eq. 40; Saharia et al. 2022, section 2.3, with a bound).

    s = max(bound, percentile of |x0| over the sample); x0 is clamped to [-s, s] and multiplied by bound/s. `bound` is
    that percentile over the training latents (1 for data in [-1, 1]), so latents that are not extreme keep their scale.
    x0 (b, ...) -> (b, ...). Raises UserError for a percentile or bound that is none.
    """
    _check_percentile(percentile)
    _check_bound(bound)
    rows = x0.flatten(1)
    sizes = rows.abs().to(torch.promote_types(x0.dtype, torch.float32))  # a quantile needs single precision at least
    limit = torch.quantile(sizes, percentile / 100, dim=1, keepdim=True).clamp(min=bound).to(x0.dtype)
    return (rows.clamp(-limit, limit) * (bound / limit)).reshape(x0.shape)


class thresholded:
    """A denoiser whose x0_hat passes through `dynamic_thresholding` (eq. 40)."""

    def __init__(self, denoiser: Denoiser, percentile: float = 99.5, bound: float = 1.0) -> None:
        _check_percentile(percentile)
        _check_bound(bound)
        self.denoiser, self.percentile, self.bound = denoiser, percentile, bound

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w), thresholded per sample."""
        return dynamic_thresholding(self.denoiser(x_t, t, cond), self.percentile, self.bound)


class clipped:
    """A denoiser whose x0_hat is clamped to [-bound, bound] (eq. 41): the static clip of Ho et al. 2020."""

    def __init__(self, denoiser: Denoiser, bound: float = 1.0) -> None:
        _check_bound(bound)
        self.denoiser, self.bound = denoiser, bound

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w), no value of it beyond the bound."""
        return self.denoiser(x_t, t, cond).clamp(-self.bound, self.bound)


def _check_percentile(percentile: float) -> None:
    if not 0 < percentile <= 100:
        raise UserError(f"the thresholding percentile is {percentile:g}", "it lies above 0 and reaches to 100")


def _check_bound(bound: float) -> None:
    if not math.isfinite(bound) or bound <= 0:
        raise UserError(f"the bound on x0_hat is {bound:g}", "it is a positive, finite number; 1 for data in [-1, 1]")
