"""The one home of the pixel range: `images` are float in [-1, 1] everywhere, stored `pixels` uint8 in 0..255."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """Stored bytes to images: uint8 0..255 -> float32 [-1, 1], any shape; 127.5 is the middle."""
    return pixels.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Images to stored bytes: float [-1, 1] -> uint8 0..255, rounded, values outside clamped. Inverts `to_float`."""
    return ((images.detach().float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
