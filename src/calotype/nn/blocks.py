"""Residual blocks and the levels of a U-Net."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn.attention import CrossAttention, SpatialAttention
from calotype.nn.dropout import Dropout
from calotype.nn.layers import group_norm, zeroed
from calotype.nn.transformer import SpatialTransformer


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), an embedding of noise level and condition taken in on the way.

    x (b, in, h, w), emb (b, emb_channels) or None -> (b, out, h, w). With `scale_shift` the embedding scales and shifts
    what the second norm gives (the adaptive group norm of Dhariwal & Nichol 2021, section 3), else it is added before
    that norm (Ho et al. 2020, appendix B).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int | None = None,
        dropout: float = 0.0,
        *,
        scale_shift: bool = True,
        groups: int = 16,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.scale_shift = scale_shift
        self.emb = nn.Linear(emb_channels, (1 + scale_shift) * out_channels) if emb_channels else None
        self.norm2 = group_norm(out_channels, groups, eps)
        self.dropout = Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.emb is None or emb is None:
            h = self.norm2(h)
        elif self.scale_shift:
            scale, shift = self.emb(F.silu(emb))[:, :, None, None].chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + self.emb(F.silu(emb))[:, :, None, None])
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network share.

    `context_channels` is the width of the text's tokens, None without cross-attention. `transformer` chooses
    SpatialTransformer in place of SpatialAttention followed by CrossAttention.
    """

    emb_channels: int
    context_channels: int | None = None
    head_channels: int = 32
    transformer: bool = False
    scale_shift: bool = True
    qk_norm: bool = False
    dropout: float = 0.0
    groups: int = 16
    eps: float = 1e-5

    def residual(self, in_channels: int, out_channels: int) -> ResidualBlock:
        """A residual block of these options."""
        return ResidualBlock(
            in_channels,
            out_channels,
            self.emb_channels,
            self.dropout,
            scale_shift=self.scale_shift,
            groups=self.groups,
            eps=self.eps,
        )

    def attention(self, channels: int) -> SpatialAttention | SpatialTransformer:
        """Self-attention, or the transformer block that holds both kinds."""
        if self.transformer:
            return SpatialTransformer(channels, self.context_channels or 0, self.head_channels, groups=self.groups)
        return SpatialAttention(channels, self.head_channels, qk_norm=self.qk_norm, groups=self.groups, eps=self.eps)

    def cross_attention(self, channels: int) -> CrossAttention | None:
        """Cross-attention of its own, where there are tokens and no transformer block that looks at them."""
        if self.transformer or self.context_channels is None:
            return None
        return CrossAttention(
            channels,
            self.context_channels,
            self.head_channels,
            qk_norm=self.qk_norm,
            groups=self.groups,
            eps=self.eps,
        )


Context = tuple[Tensor, Tensor]  # tokens (b, n, d) and their mask (b, n)


def attend(attention: nn.Module, x: Tensor, context: Context | None) -> Tensor:
    """x through an attention block of either kind."""
    return attention(x, *context) if isinstance(attention, SpatialTransformer) and context else attention(x)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by self-attention and cross-attention where asked."""

    def __init__(self, widths: list[tuple[int, int]], options: BlockOptions, attention: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([options.residual(i, o) for i, o in widths])
        self.attentions = nn.ModuleList([options.attention(o) if attention else nn.Identity() for _, o in widths])
        crosses = [options.cross_attention(o) for _, o in widths if attention]
        self.crosses = nn.ModuleList([cross for cross in crosses if cross is not None])

    def apply_block(self, i: int, x: Tensor, emb: Tensor, context: Context | None) -> Tensor:
        x = attend(self.attentions[i], self.blocks[i](x, emb), context)
        return self.crosses[i](x, *context) if len(self.crosses) and context is not None else x


class DownBlock(Level):
    """A level on the way down; forward returns the map for the next level and the skips it leaves behind.

    `options` are shared by all blocks of a network; without them `emb_channels` makes the usual ones.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        emb_channels: int,
        *,
        downsample: bool,
        attention: bool,
        options: BlockOptions | None = None,
    ) -> None:
        widths = [(in_channels if i == 0 else out_channels, out_channels) for i in range(depth)]
        super().__init__(widths, _with_emb(options, emb_channels), attention)
        self.resample = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(self, x: Tensor, emb: Tensor, context: Context | None = None) -> tuple[Tensor, list[Tensor]]:
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
        options: BlockOptions | None = None,
    ) -> None:
        inputs = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        widths = [(i + s, out_channels) for i, s in zip(inputs, skip_channels, strict=True)]
        super().__init__(widths, _with_emb(options, emb_channels), attention)
        self.skip_channels = skip_channels
        self.resample = nn.Conv2d(out_channels, out_channels, 3, padding=1) if upsample else None

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, context: Context | None = None) -> Tensor:
        for i in range(len(self.blocks)):
            x = torch.cat([x, skips.pop()], dim=1) if self.skip_channels[i] else x
            x = self.apply_block(i, x, emb, context)
        if self.resample is not None:
            x = self.resample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


def _with_emb(options: BlockOptions | None, emb_channels: int) -> BlockOptions:
    return BlockOptions(emb_channels) if options is None else replace(options, emb_channels=emb_channels)
