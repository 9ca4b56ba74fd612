"""The fast layout of a VAE: patches of pixels are folded into channels, so that no convolution sees full resolution."""

from __future__ import annotations

from torch import nn

from calotype.nn import ResidualBlock
from calotype.nn.layers import group_norm


def folded_encoder(
    latent_channels: int, patch: int, widths: tuple[int, ...], blocks: tuple[int, ...], groups: int
) -> nn.Sequential:
    """images (b, 3, H, W) -> (b, 2 c, H/f, W/f), f = patch 2^(levels - 1); `blocks` residual blocks at each level.

    Convolutions at full resolution are what a CPU cannot afford, so the stem folds patches into channels
    (pixel-unshuffle) and the head unfolds them; everything between runs at 1/patch of the resolution or less.
    """
    layers: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)]
    for i, width in enumerate(widths):
        if i > 0:
            layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * widths[i - 1], width, 1)]
        layers += [ResidualBlock(width, width, groups=groups) for _ in range(blocks[i])]
    head = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)
    return nn.Sequential(*layers, group_norm(widths[-1], groups), nn.SiLU(), head)


def folded_decoder(
    latent_channels: int, patch: int, widths: tuple[int, ...], blocks: tuple[int, ...], groups: int
) -> nn.Sequential:
    """z_raw (b, c, h, w) -> images (b, 3, f h, f w): the encoder's mirror image."""
    layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[-1], 3, padding=1)]
    for i in reversed(range(len(widths))):
        layers += [ResidualBlock(widths[i], widths[i], groups=groups) for _ in range(blocks[i])]
        if i > 0:
            layers += [nn.Conv2d(widths[i], 4 * widths[i - 1], 1), nn.PixelShuffle(2)]
    head = nn.Conv2d(widths[0], 3 * patch**2, 3, padding=1)
    return nn.Sequential(*layers, group_norm(widths[0], groups), nn.SiLU(), head, nn.PixelShuffle(patch))
