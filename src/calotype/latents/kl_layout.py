"""The layout of Rombach et al. (2022), which diffusers' AutoencoderKL computes, so that weights can be renamed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn import ResidualBlock, SpatialAttention
from calotype.nn.layers import group_norm

EPS = 1e-6  # of every normalisation in this layout


class KLStage(nn.Module):
    """Residual blocks of one resolution, then the way to the next one where there is one."""

    def __init__(self, in_channels: int, channels: int, blocks: int, groups: int, resample: nn.Module | None) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * (blocks - 1)
        self.blocks = nn.ModuleList([ResidualBlock(width, channels, groups=groups, eps=EPS) for width in widths])
        self.resample = resample if resample is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.resample(x)


class Halve(nn.Conv2d):
    """(b, c, h, w) -> (b, c, h/2, w/2): stride 2 over a picture padded by one row below and one column to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Conv2d):
    """(b, c, h, w) -> (b, c, 2 h, 2 w): every position repeated, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class KLEncoder(nn.Module):
    """images (b, 3, H, W) -> (b, 2 c, H/f, W/f), f = 2^(levels - 1): levels, then block, attention, block."""

    def __init__(self, latent_channels: int, widths: tuple[int, ...], blocks: int, groups: int, attention: bool):
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            [
                KLStage(widths[max(i - 1, 0)], width, blocks, groups, Halve(width) if i < last else None)
                for i, width in enumerate(widths)
            ]
        )
        self.middle, self.attention = _middle(widths[-1], groups, attention)
        self.norm_out = group_norm(widths[-1], groups, EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv_in(images)
        for stage in self.down:
            h = stage(h)
        h = self.middle[1](self.attention(self.middle[0](h)))
        return self.conv_out(F.silu(self.norm_out(h)))


class KLDecoder(nn.Module):
    """z_raw (b, c, h, w) -> images (b, 3, f h, f w): block, attention, block, then levels, coarsest first."""

    def __init__(self, latent_channels: int, widths: tuple[int, ...], blocks: int, groups: int, attention: bool):
        super().__init__()
        coarsest_first, last = widths[::-1], len(widths) - 1
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.middle, self.attention = _middle(widths[-1], groups, attention)
        self.up = nn.ModuleList(
            [
                KLStage(coarsest_first[max(i - 1, 0)], width, blocks + 1, groups, Double(width) if i < last else None)
                for i, width in enumerate(coarsest_first)
            ]
        )
        self.norm_out = group_norm(widths[0], groups, EPS)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z_raw: Tensor) -> Tensor:
        h = self.conv_in(z_raw)
        h = self.middle[1](self.attention(self.middle[0](h)))
        for stage in self.up:
            h = stage(h)
        return self.conv_out(F.silu(self.norm_out(h)))


def _middle(channels: int, groups: int, attention: bool) -> tuple[nn.ModuleList, nn.Module]:
    """Two residual blocks, and what stands between them: attention of one head, or nothing."""
    blocks = nn.ModuleList([ResidualBlock(channels, channels, groups=groups, eps=EPS) for _ in range(2)])
    between = SpatialAttention(channels, channels, groups=groups, eps=EPS) if attention else nn.Identity()
    return blocks, between
