"""Residual blocks and the levels of a U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn.attention import CrossAttention, SpatialAttention
from calotype.nn.layers import group_norm, zeroed


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the second norm scaled and shifted by an embedding.

    x (b, in, h, w), emb (b, emb_channels) or None -> (b, out, h, w). Scale-shift is the adaptive group norm of
    Dhariwal & Nichol (2021), section 3: it brings noise level and condition into every block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, emb_channels: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb_channels, 2 * out_channels) if emb_channels else None
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.emb is not None and emb is not None:
            scale, shift = self.emb(F.silu(emb))[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by self-attention and cross-attention where asked."""

    def __init__(
        self,
        widths: list[tuple[int, int]],
        emb_channels: int,
        *,
        attention: bool,
        context_channels: int | None,
        head_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(i, o, emb_channels, dropout) for i, o in widths])
        self.attentions = nn.ModuleList(
            [SpatialAttention(o, head_channels) if attention else nn.Identity() for _, o in widths]
        )
        crossed = attention and context_channels is not None
        self.crosses = nn.ModuleList(
            [CrossAttention(o, context_channels or 0, head_channels) for _, o in widths] if crossed else []
        )

    def apply_block(self, i: int, x: Tensor, emb: Tensor, context: tuple[Tensor, Tensor] | None) -> Tensor:
        x = self.attentions[i](self.blocks[i](x, emb))
        return self.crosses[i](x, *context) if len(self.crosses) and context is not None else x


class DownBlock(Level):
    """A level on the way down; forward returns the map for the next level and the skips it leaves behind."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        emb_channels: int,
        *,
        downsample: bool,
        attention: bool,
        context_channels: int | None = None,
        head_channels: int = 32,
        dropout: float = 0.0,
    ) -> None:
        widths = [(in_channels if i == 0 else out_channels, out_channels) for i in range(depth)]
        super().__init__(
            widths,
            emb_channels,
            attention=attention,
            context_channels=context_channels,
            head_channels=head_channels,
            dropout=dropout,
        )
        self.resample = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(
        self, x: Tensor, emb: Tensor, context: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i in range(len(self.blocks)):
            x = self.apply_block(i, x, emb, context)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x)
            skips.append(x)
        return x, skips


class UpBlock(Level):
    """A level on the way up; block i takes a skip of `skip_channels[i]` channels, none where that is 0."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        skip_channels: list[int],
        emb_channels: int,
        *,
        upsample: bool,
        attention: bool,
        context_channels: int | None = None,
        head_channels: int = 32,
        dropout: float = 0.0,
    ) -> None:
        inputs = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        super().__init__(
            [(i + s, out_channels) for i, s in zip(inputs, skip_channels, strict=True)],
            emb_channels,
            attention=attention,
            context_channels=context_channels,
            head_channels=head_channels,
            dropout=dropout,
        )
        self.skip_channels = skip_channels
        self.resample = nn.Conv2d(out_channels, out_channels, 3, padding=1) if upsample else None

    def forward(
        self, x: Tensor, skips: list[Tensor], emb: Tensor, context: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        for i in range(len(self.blocks)):
            x = torch.cat([x, skips.pop()], dim=1) if self.skip_channels[i] else x
            x = self.apply_block(i, x, emb, context)
        if self.resample is not None:
            x = self.resample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x
