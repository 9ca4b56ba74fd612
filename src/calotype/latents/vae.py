"""The convolutional variational autoencoder (Kingma & Welling 2014): pictures to spatial latents and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.config import Config
from calotype.nn import ResidualBlock
from calotype.nn.layers import group_norm


class VAEConfig(Config):
    """Shape of a ConvVAE. `patch` pixels a side are folded into channels by the stem; each further level halves.

    Widths and numbers of residual blocks are listed from the finest level to the coarsest.
    """

    latent_channels: int = 4
    patch: int = 4
    channels: tuple[int, ...] = (48, 96)
    encoder_blocks: tuple[int, ...] = (1, 1)
    decoder_blocks: tuple[int, ...] = (2, 1)

    @property
    def downsampling(self) -> int:
        """Pixels per latent position and side: f of "f8"."""
        return int(self.patch * 2 ** (len(self.channels) - 1))


class ConvVAE(nn.Module):
    """q(z given image) = N(mean, exp(logvar)), both spatial; p(image given z) around the decoder's picture.

    Convolutions at full resolution are what a CPU cannot afford, so the stem folds patches into channels
    (pixel-unshuffle) and the head unfolds them; everything between runs at 1/patch of the resolution or less.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths, pixels = config.channels, 3 * config.patch**2
        encoder: list[nn.Module] = [nn.PixelUnshuffle(config.patch), nn.Conv2d(pixels, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            if i > 0:
                encoder += [nn.PixelUnshuffle(2), nn.Conv2d(4 * widths[i - 1], width, 1)]
            encoder += [ResidualBlock(width, width) for _ in range(config.encoder_blocks[i])]
        encoder += [group_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)]
        decoder: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)]
        for i in reversed(range(len(widths))):
            decoder += [ResidualBlock(widths[i], widths[i]) for _ in range(config.decoder_blocks[i])]
            if i > 0:
                decoder += [nn.Conv2d(widths[i], 4 * widths[i - 1], 1), nn.PixelShuffle(2)]
        decoder += [group_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], pixels, 3, padding=1)]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder, nn.PixelShuffle(config.patch))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, 3, H, W) in [-1, 1] -> mean and logvar, each (b, c, H/f, W/f), of the raw latent."""
        f = self.config.downsampling
        if images.shape[-1] % f or images.shape[-2] % f:
            raise ValueError(f"pictures must be divisible by {f} on both sides, got {tuple(images.shape[-2:])}")
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        return mean, logvar.clamp(-20, 5)

    def decode(self, z_raw: Tensor) -> Tensor:
        """z_raw (b, c, h, w) -> images (b, 3, f h, f w), about [-1, 1] and not clipped."""
        return self.decoder(z_raw)


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z_raw = mean + exp(logvar / 2) noise (eq. 43; Kingma & Welling 2014, section 2.4), so that gradients pass."""
    return mean + torch.exp(0.5 * logvar) * noise


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) = (mean^2 + exp(logvar) - 1 - logvar)/2 (eq. 44), mean over elements: ()."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def reconstruction_loss(images: Tensor, reconstructed: Tensor, l1_weight: float, l2_weight: float) -> Tensor:
    """l2_weight * mean squared + l1_weight * mean absolute difference, (): L2 for fidelity, L1 for clean outlines."""
    return l2_weight * F.mse_loss(reconstructed, images) + l1_weight * F.l1_loss(reconstructed, images)
