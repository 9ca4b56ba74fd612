"""Wrappers denoiser -> denoiser that steer x0_hat, and the one order in which all wrappers are put on."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.core.types import Denoiser, innermost
from calotype.network.conditioning import Condition
from calotype.network.denoiser import per_row
from calotype.network.thresholding import clipped, thresholded

Threshold = Literal["none", "dynamic", "static"]


class guided:
    """Classifier-free guidance x0_hat = w D(x_t, t, cond) + (1 - w) D(x_t, t, null) (eq. 36; Ho & Salimans 2022).

    Both halves go through the network in one batch of 2b. scale w = 1 is the conditional denoiser itself, in one pass,
    and so is every level outside `interval` = (t_low, t_high) (eq. 37; Kynkaanniemi et al. 2024). `null_cond` is what
    to move away from: by default `cond.dropped()`; or a negative prompt, a Condition or tensor of one row or of b. A
    tensor `cond` needs it given. Without a condition (None) there is nothing to guide, and the denoiser answers alone.

    `rescale` = phi in [0, 1] gives each sample phi of the spread of its conditional x0_hat back (eq. 38; Lin et al.
    2024, section 3.4): x0_hat (phi std(D(cond))/std(x0_hat) + 1 - phi).
    Raises UserError for a scale that is not finite, an interval that is none, and a rescale outside [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float = 3.0,
        null_cond: Any = None,
        interval: tuple[float, float] | None = None,
        *,
        rescale: float = 0.0,
    ) -> None:
        if not 0 <= rescale <= 1:
            raise UserError(f"the guidance rescale is {rescale:g}", "it lies in [0, 1]; 0 switches it off")
        self.interval = _checked(scale, interval)
        self.denoiser, self.scale, self.null_cond, self.rescale = denoiser, float(scale), null_cond, rescale

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w); t is () or (b,)."""
        t = per_row(t, x_t)
        weights = _weights(self.scale, self.interval, t)
        if cond is None or all(weight == 1 for weight in weights):
            return self.denoiser(x_t, t, cond)
        both = _stack(cond, self.null_cond)
        with_cond, without = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        x0_hat = _mixed(weights, with_cond, without)
        return _rescaled(x0_hat, with_cond, self.rescale) if self.rescale else x0_hat


class autoguided:
    """Autoguidance x0_hat = w D(x_t, t, cond) + (1 - w) D_weak(x_t, t, cond) (eq. 39; Karras et al. 2024).

    `weak` is an earlier checkpoint or a smaller network for the same data and process; its errors are those of
    `denoiser`, only larger, and the extrapolation moves away from them. scale w = 1, and every level outside
    `interval` = (t_low, t_high), is `denoiser` itself: the weak one is not asked.
    Raises UserError for a scale or an interval that is none, and for a weak denoiser of another process.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        weak: Denoiser,
        scale: float = 2.0,
        interval: tuple[float, float] | None = None,
    ) -> None:
        self.interval = _checked(scale, interval)
        self.denoiser, self.weak, self.scale = denoiser, weak, float(scale)
        inner, inner_weak = innermost(denoiser), innermost(weak)
        # Either may be a plain function that names no process; then there is nothing to compare.
        process = getattr(inner, "process", getattr(inner_weak, "process", None))
        process_of_weak = getattr(inner_weak, "process", process)
        if process_of_weak != process:
            raise UserError(
                f"the weak denoiser was trained on {process_of_weak!r}, the one it guides on {process!r}",
                "use one process",
            )

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat (b, c, h, w); t is () or (b,)."""
        t = per_row(t, x_t)
        weights = _weights(self.scale, self.interval, t)
        x0_hat = self.denoiser(x_t, t, cond)
        if all(weight == 1 for weight in weights):
            return x0_hat
        return _mixed(weights, x0_hat, self.weak(x_t, t, cond))


def dress(
    denoiser: Denoiser,
    *,
    guidance_scale: float = 1.0,
    null_cond: Any = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    weak: Denoiser | None = None,
    weak_scale: float = 2.0,
    threshold: Threshold = "none",
    percentile: float = 99.5,
    bound: float = 1.0,
) -> Denoiser:
    """`denoiser` in its wrappers, always in this order (eq. 42), and only in those that do something:

    1. classifier-free guidance with its rescale: x1 = w D(cond) + (1 - w) D(null), then eq. 38 (`guided`);
    2. autoguidance: x2 = w' x1 + (1 - w') D_weak(cond), the weak one itself unguided (`autoguided`);
    3. thresholding, dynamic with `percentile` or a static clip, within `bound` (`thresholded`, `clipped`).
    `guidance_interval` holds for 1 and 2. Guidance comes before thresholding, which tames what it overdoes.
    Raises UserError for what the wrappers refuse, used or not, and for an unknown `threshold`.
    """
    guide = guided(denoiser, guidance_scale, null_cond, guidance_interval, rescale=guidance_rescale)
    denoiser = denoiser if guide.scale == 1 else guide
    if weak is not None and weak_scale != 1:
        denoiser = autoguided(denoiser, weak, weak_scale, guidance_interval)
    finished: dict[str, Denoiser] = {
        "none": denoiser,
        "dynamic": thresholded(denoiser, percentile, bound),
        "static": clipped(denoiser, bound),
    }
    if threshold not in finished:
        raise UserError(f"unknown threshold '{threshold}'", nearest(threshold, finished))
    return finished[threshold]


def _checked(scale: float, interval: tuple[float, float] | None) -> tuple[float, float]:
    """The interval (t_low, t_high), every level where none is given."""
    if not math.isfinite(scale):
        raise UserError(f"the guidance scale is {scale:g}", "it is a finite number; 1 switches guidance off")
    low, high = interval or (0.0, math.inf)
    if not 0 <= low <= high:
        raise UserError(f"the guidance interval runs from {low:g} to {high:g}", "give (t_low, t_high), 0 <= t_low")
    return low, high


def _weights(scale: float, interval: tuple[float, float], t: Tensor) -> list[float]:
    """Eq. 37 for levels t (b,): w where t_low <= t <= t_high, else 1."""
    inside = t.clamp(*interval) == t
    return [scale if row else 1.0 for row in inside.tolist()]


def _mixed(weights: list[float], towards: Tensor, away: Tensor) -> Tensor:
    """w towards + (1 - w) away, with a weight for each row (b, ...)."""
    weight = towards.new_tensor(weights).reshape(-1, *[1] * (towards.ndim - 1))
    return weight * towards + (1 - weight) * away


def _rescaled(x0_hat: Tensor, with_cond: Tensor, rescale: float) -> Tensor:
    """Eq. 38 as x0_hat (1 + phi (ratio - 1)), exactly x0_hat where the ratio of spreads is 1. All (b, ...)."""
    rows, rows_cond = x0_hat.flatten(1), with_cond.flatten(1)
    std = rows.std(1, correction=0, keepdim=True)
    ratio = torch.where(std.bool(), rows_cond.std(1, correction=0, keepdim=True) / std, 1.0)  # no spread: leave it
    return (rows * (1 + rescale * (ratio - 1))).reshape(x0_hat.shape)


def _stack(cond: Any, null: Any) -> Any:
    """Rows of `cond`, then as many of `null`, in one batch."""
    if null is None:
        if not isinstance(cond, Condition):
            raise ValueError(f"guidance over a {type(cond).__name__} needs null_cond")
        null = cond.dropped()
    if isinstance(cond, Condition):
        if len(null) not in (1, len(cond)):
            raise ValueError(f"null_cond has {len(null)} rows, the condition {len(cond)}")
        rows = torch.arange(len(null)).expand(len(cond))
        return Condition.cat([cond, null[rows].to(cond.null.device)])
    try:
        return torch.cat([cond, null.to(cond).expand(cond.shape)])
    except RuntimeError:
        shapes = f"{tuple(null.shape)}, the condition {tuple(cond.shape)}"
        raise ValueError(f"null_cond has shape {shapes}") from None
