"""The codec: a frozen VAE with the mean and the scale of its latents. Their one home."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calotype.core.config import Config
from calotype.latents import tiling
from calotype.latents.first_stage import FirstStage
from calotype.latents.vae import reparameterize


class LatentStatistics(Config):
    """Per-channel mean and std of the raw latents over the training set, measured once and frozen.

    `bound` is the 99.5 % quantile of |x0| over the standardised training latents: where dynamic thresholding clamps.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bound: float


class Codec(nn.Module):
    """Standardised latents: x0 = (z_raw - mean) / std, per channel. Implements `core.types.Codec`.

    Pictures of any size that the VAE divides; large ones go through it tile by tile (`tiling`).
    """

    def __init__(self, vae: FirstStage, statistics: LatentStatistics, image_size: int) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.statistics = statistics
        self.image_size = image_size
        side = image_size // vae.config.downsampling
        self.latent_shape = (vae.config.latent_channels, side, side)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(statistics.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).reshape(1, -1, 1, 1), persistent=False)

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """images (b, 3, H, W) in [-1, 1] -> x0 (b, c, h, w): the posterior's mean, or a sample of it given noise."""
        mean, logvar = tiling.encode(self.vae, images.to(self.mean.device))
        z_raw = mean if noise is None else reparameterize(mean, logvar, noise)
        return self.standardize(z_raw)

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """x0 (b, c, h, w) -> images (b, 3, H, W), clipped to [-1, 1]."""
        return tiling.decode(self.vae, x0 * self.std + self.mean).clamp(-1, 1)

    def standardize(self, z_raw: Tensor) -> Tensor:
        """z_raw -> x0 = (z_raw - mean) / std (eq. 46)."""
        return (z_raw - self.mean) / self.std


def decode_latents(codec: Codec, x0: Tensor, batch_size: int = 64) -> Tensor:
    """Decode any number of latents in batches, so that memory stays bounded: (n, c, h, w) -> (n, 3, H, W)."""
    return torch.cat([codec.decode(part) for part in x0.split(batch_size)])
