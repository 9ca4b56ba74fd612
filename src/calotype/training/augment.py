"""Small changes to training pictures, each a pure function of (seed, step, sample id)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.core.config import Config
from calotype.core.random import uniform


class AugmentConfig(Config):
    """`flip`: mirror half the pictures; `shift`: move by up to so many pixels; `permute`: share with RGB shuffled.

    Mirroring is free; in runs of minutes the other two cost the VAE .6 dB on held-out pictures (docs/log.md).
    """

    flip: bool = True
    shift: int = 0
    permute: float = 0.0


_ORDERS = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])


def augment(images: Tensor, config: AugmentConfig, seed: int, step: int, ids: Tensor) -> Tensor:
    """images (b, 3, H, W) -> the same, mirrored, shifted (edges repeat) and with channels permuted, as configured."""
    h, w = images.shape[-2:]
    draws = uniform(seed, "augment", step, ids, (5,))
    if config.flip:
        images = torch.where((draws[:, 0] < 0.5)[:, None, None, None], images.flip(-1), images)
    if config.permute > 0:
        orders = _ORDERS[(draws[:, 1] * 6).long()]
        orders = torch.where((draws[:, 2] < config.permute)[:, None], orders, _ORDERS[0])
        images = images.gather(1, orders[:, :, None, None].expand(-1, -1, h, w))
    if config.shift > 0:
        moves = (draws[:, 3:] * (2 * config.shift + 1)).long()
        padded = F.pad(images, [config.shift] * 4, mode="replicate")
        images = torch.stack([padded[i, :, y : y + h, x : x + w] for i, (y, x) in enumerate(moves.tolist())])
    return images
