"""The attention U-Net: noise level and condition in every block (Ronneberger et al. 2015; Ho et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.config import Config
from calotype.network.conditioning import Condition, ConditionEncoder, LayoutMap, TiledMap
from calotype.nn import DownBlock, ResidualBlock, SpatialAttention, UpBlock, timestep_embedding
from calotype.nn.layers import group_norm, zeroed


class UNetConfig(Config):
    """Shape of a U-Net. `channels` has one width a level; each level halves the resolution of the one before.

    `skips`: the way up takes one map from each level ("level"), or one from every block, stem and downsampling of the
    way down ("block", the layout of Ho et al. and of diffusers), which costs half as much time again.
    `text_tokens` adds cross-attention to every word. `map_channels` concatenates a map made from the condition to the
    input: a learned layout of `map_size` positions a side ("layout"), or the walkthrough's map, the same at every
    position, with the noise level in 32 channels of its own ("tiled").
    """

    in_channels: int = 4
    channels: tuple[int, ...] = (64, 128)
    blocks_per_level: int = 1
    middle_blocks: int = 1
    skips: Literal["level", "block"] = "level"
    attention: tuple[bool, ...] = (False, True)
    head_channels: int = 32
    emb_channels: int = 256
    condition_channels: int = 1024
    dropout: float = 0.0
    num_classes: int = 0
    text_dim: int = 0
    text_tokens: bool = False
    map_channels: int = 0
    map_kind: Literal["layout", "tiled"] = "layout"
    map_size: int = 8


class UNet(nn.Module):
    """(x_t (b, c, h, w), time (b,), cond) -> prediction (b, c, h, w); h and w divisible by 2^(levels - 1)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, emb = config.channels, config.emb_channels
        options: dict[str, Any] = {
            "context_channels": config.text_dim if config.text_tokens else None,
            "head_channels": config.head_channels,
            "dropout": config.dropout,
        }
        self.time_mlp = nn.Sequential(nn.Linear(widths[0], emb), nn.SiLU(), nn.Linear(emb, emb))
        hidden = config.condition_channels
        self.condition = ConditionEncoder(
            hidden, num_classes=config.num_classes, text_dim=config.text_dim, text_tokens=config.text_tokens
        )
        self.from_condition = nn.Linear(hidden, emb)
        self.map = _condition_map(config)
        mapped = 0 if self.map is None else self.map.channels
        self.conv_in = nn.Conv2d(config.in_channels + mapped, widths[0], 3, padding=1)
        self.down, left = nn.ModuleList(), [widths[0]]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            below = widths[max(i - 1, 0)]
            attention = config.attention[i]
            self.down.append(
                DownBlock(
                    below, width, config.blocks_per_level, emb, downsample=not last, attention=attention, **options
                )
            )
            left += [width] * (config.blocks_per_level + (not last))
        self.middle = nn.ModuleList(
            [ResidualBlock(widths[-1], widths[-1], emb, config.dropout) for _ in range(config.middle_blocks)]
        )
        self.middle_attention = SpatialAttention(widths[-1], config.head_channels)
        self.up = nn.ModuleList()
        for i in reversed(range(len(widths))):
            if config.skips == "level":
                taken = [widths[i]] + [0] * (config.blocks_per_level - 1)
            else:
                taken = [left.pop() for _ in range(config.blocks_per_level + 1)]
            above = widths[min(i + 1, len(widths) - 1)]
            self.up.append(
                UpBlock(above, widths[i], taken, emb, upsample=i > 0, attention=config.attention[i], **options)
            )
        self.norm_out = group_norm(widths[0])
        self.conv_out = zeroed(nn.Conv2d(widths[0], config.in_channels, 3, padding=1))

    def forward(self, x_t: Tensor, time: Tensor, cond: Condition | None = None) -> Tensor:
        cond = Condition.nothing(len(x_t), x_t.device) if cond is None else cond
        asked = self.condition(cond)
        emb = self.time_mlp(timestep_embedding(time, self.config.channels[0])) + self.from_condition(asked)
        context = self.condition.context(cond) if self.config.text_tokens else None
        x = self.conv_in(x_t if self.map is None else torch.cat([x_t, self.map(asked, time, x_t)], dim=1))
        skips = [x] if self.config.skips == "block" else []
        for down in self.down:
            x, left = down(x, emb, context)
            skips += left if self.config.skips == "block" else left[self.config.blocks_per_level - 1 :][:1]
        for i, block in enumerate(self.middle):
            x = block(x, emb)
            x = self.middle_attention(x) if i == 0 else x
        for up in self.up:
            x = up(x, skips, emb, context)
        return self.conv_out(F.silu(self.norm_out(x)))


def _condition_map(config: UNetConfig) -> LayoutMap | TiledMap | None:
    if not config.map_channels:
        return None
    if config.map_kind == "tiled":
        return TiledMap(config.condition_channels, config.map_channels)
    return LayoutMap(config.condition_channels, config.map_channels, config.map_size)


def walkthrough_config(block_depth: int, emb_size: int, latent_channels: int) -> UNetConfig:
    """The walkthrough's U-Net: 128-256-512 channels, a condition map of 32 + 256, cross-attention to every word."""
    return UNetConfig(
        in_channels=latent_channels,
        channels=(128, 256, 512),
        blocks_per_level=block_depth,
        attention=(False, True, True),
        condition_channels=256,
        text_dim=emb_size,
        text_tokens=True,
        map_channels=256,
        map_kind="tiled",
    )


def get_network(
    latent_image_size: int = 16, block_depth: int = 3, emb_size: int = 512, latent_channels: int = 4
) -> UNet:
    """The U-Net of the walkthrough, 128-256-512 channels: `emb_size` is the dimension of its pooled text vector."""
    if latent_image_size % 4:
        raise ValueError(f"latent_image_size must be divisible by 4, got {latent_image_size}")
    return UNet(walkthrough_config(block_depth, emb_size, latent_channels))


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())
