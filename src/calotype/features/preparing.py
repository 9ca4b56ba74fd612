"""Pictures on their way into a feature network: checked, resized, normalised, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# ImageNet's channel mean and deviation of intensities in [0, 1], with which most networks of pictures were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Resampling = Literal["bilinear", "bicubic"]


def check_images(images: Tensor) -> None:
    """ValueError for anything but (n, 3, h, w)."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images (n, 3, h, w) are needed, not {tuple(images.shape)}")


def resized(images: Tensor, size: tuple[int, int], mode: Resampling = "bicubic") -> Tensor:
    """Images (n, 3, h, w) in [-1, 1] -> (n, 3, *size), antialiased; what a bicubic kernel overshoots is cut."""
    return interpolate(images.float(), size, mode=mode, antialias=True, align_corners=False).clamp(-1, 1)


def normalised(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """[-1, 1] -> (intensity - mean) / std of each channel, intensities in [0, 1]: what the weights were trained on."""
    centre, width = (torch.tensor(v, device=images.device).reshape(3, 1, 1) for v in (mean, std))
    return ((images + 1) / 2 - centre) / width


@torch.no_grad()
def in_batches(
    forward: Callable[[Tensor], Tensor], images: Tensor, *, dim: int, batch_size: int, device: torch.device | str
) -> Tensor:
    """`forward` on batches (b, 3, h, w) on `device` -> (n, dim) float32 on the CPU, whatever n is.

    ValueError for images of another shape.
    """
    check_images(images)
    features = torch.empty(len(images), dim)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(device, torch.float32)
        features[start : start + batch_size] = forward(batch).float().cpu()
    return features
