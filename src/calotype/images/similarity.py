"""How like its original a reconstruction is: peak signal-to-noise ratio and structural similarity, per picture."""

from __future__ import annotations

import torch
from torch import Tensor

VALUE_RANGE = 2.0
WINDOW = 11
WINDOW_SIGMA = 1.5


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """10 log10(range^2 / mean squared difference) in dB: two (n, 3, h, w) in [-1, 1] -> (n,); inf where equal."""
    _check(images, others)
    error = (images.float() - others.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(VALUE_RANGE**2 / error)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over the picture: two (n, 3, h, w) in [-1, 1] -> (n,) in [-1, 1].

    SSIM = (2 mu_x mu_y + C1)(2 cov_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(var_x + var_y + C2)), with a Gaussian window of
    11 x 11 and sigma 1.5 that stays inside the picture, C1 = (.01 range)^2, C2 = (.03 range)^2, per colour. The mu are
    those of non-negative intensities, as the paper has them, so values are moved from [-1, 1] to [0, 2].
    Pictures of fewer than 11 pixels a side are refused.
    """
    _check(images, others)
    if min(images.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW} x {WINDOW} pixels, not {tuple(images.shape[-2:])}")
    x, y = images.double() + VALUE_RANGE / 2, others.double() + VALUE_RANGE / 2
    mu_x, mu_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mu_x * mu_x
    var_y = _blur(y * y) - mu_y * mu_y
    cov = _blur(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * VALUE_RANGE) ** 2, (0.03 * VALUE_RANGE) ** 2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x.square() + mu_y.square() + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(dim=1).float()


def _blur(values: Tensor) -> Tensor:
    """Gaussian-weighted local means, without padding: (n, c, h, w) -> (n, c, h - 10, w - 10)."""
    return _window_rows(values.shape[-2], values) @ values @ _window_rows(values.shape[-1], values).T


def _window_rows(size: int, like: Tensor) -> Tensor:
    """(size - 10, size): row i holds the window's weights at i ... i + 10, so that a blur is two matrix products."""
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * WINDOW_SIGMA**2))
    rows = torch.zeros(size - WINDOW + 1, size, dtype=like.dtype, device=like.device)
    for start in range(len(rows)):
        rows[start, start : start + WINDOW] = weights / weights.sum()
    return rows


def _check(images: Tensor, others: Tensor) -> None:
    if images.shape != others.shape or images.ndim != 4:
        raise ValueError(f"two equal batches (n, 3, h, w) are needed, not {images.shape} and {others.shape}")
