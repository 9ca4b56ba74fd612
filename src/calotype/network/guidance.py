"""Wrappers denoiser -> denoiser: classifier-free guidance, and thresholding of x0_hat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.core.types import Denoiser
from calotype.network.conditioning import Condition


class guided:
    """Classifier-free guidance x0_hat = w D(x_t, t, cond) + (1 - w) D(x_t, t, null) (Ho & Salimans 2022).

    Both halves go through the network in one batch of 2b. scale 1 is the conditional denoiser itself, in one pass, and
    so is every level outside `interval` = (t_low, t_high) (Kynkaanniemi et al. 2024). `null_cond` is what to move away
    from: by default `cond.dropped()`; a Condition (a negative prompt) or a tensor, of one row or of b. A tensor `cond`
    needs it given. Without a condition (None) there is nothing to guide, and the denoiser answers alone.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float = 3.0,
        null_cond: Any = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"interval runs from {interval[0]} to {interval[1]}: give (t_low, t_high)")
        self.denoiser, self.scale, self.null_cond, self.interval = denoiser, float(scale), null_cond, interval

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w); t is () or (b,)."""
        t = torch.as_tensor(t)
        t = t.expand(len(x_t)) if t.ndim == 0 else t
        weight = self._weight(t)
        if cond is None or bool((weight == 1).all()):
            return self.denoiser(x_t, t, cond)
        both = _stack(cond, self._null(cond))
        with_cond, without = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        weight = weight.to(x_t.dtype).to(x_t.device).reshape(-1, *([1] * (x_t.ndim - 1)))
        return weight * with_cond + (1 - weight) * without

    def _weight(self, t: Tensor) -> Tensor:
        """The guidance scale of each row, 1 outside the interval."""
        weight = torch.full(t.shape, self.scale, dtype=torch.float32, device=t.device)
        if self.interval is None:
            return weight
        low, high = self.interval
        return torch.where((t >= low) & (t <= high), weight, 1.0)

    def _null(self, cond: Any) -> Any:
        """What to move away from, with as many rows as `cond`."""
        null = self.null_cond
        if null is None:
            if not isinstance(cond, Condition):
                raise ValueError(f"guidance over a {type(cond).__name__} needs null_cond")
            return cond.dropped()
        if isinstance(null, Tensor) and null.ndim == cond.ndim - 1:
            null = null[None]
        if len(null) not in (1, len(cond)):
            raise ValueError(f"null_cond has {len(null)} rows, the condition {len(cond)}")
        if len(null) != len(cond):
            rows = torch.zeros(len(cond), dtype=torch.int64)
            null = null[rows.to(null.device if isinstance(null, Tensor) else null.null.device)]
        return null


def _stack(cond: Any, null: Any) -> Any:
    """Rows of `cond`, then of `null`, in one batch."""
    if isinstance(cond, Condition):
        return Condition.cat([cond, null])
    return torch.cat([cond, null.to(cond.dtype).to(cond.device)])


def dynamic_thresholding(x0: Tensor, percentile: float = 99.5, bound: float = 1.0) -> Tensor:
    """Tame the outliers of each sample by itself (Saharia et al. 2022, section 2.3, per sample and with a bound).

    s = max(bound, percentile of |x0| over the sample); x0 is clamped to [-s, s] and multiplied by bound/s. `bound` is
    that percentile over the training latents (1 for data in [-1, 1]), so latents that are not extreme keep their scale.
    x0 (b, ...) -> (b, ...).
    """
    if not 0 < percentile <= 100 or not bound > 0:
        raise ValueError(f"percentile {percentile} must lie in (0, 100] and bound {bound} above 0")
    rows = x0.flatten(1)
    limit = torch.quantile(rows.abs().float(), percentile / 100, dim=1, keepdim=True).clamp(min=bound).to(x0.dtype)
    return (rows.clamp(-limit, limit) * (bound / limit)).reshape(x0.shape)


class thresholded:
    """A denoiser whose x0_hat passes through `dynamic_thresholding`."""

    def __init__(self, denoiser: Denoiser, percentile: float = 99.5, bound: float = 1.0) -> None:
        self.denoiser, self.percentile, self.bound = denoiser, percentile, bound

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w), thresholded per sample."""
        return dynamic_thresholding(self.denoiser(x_t, t, cond), self.percentile, self.bound)
