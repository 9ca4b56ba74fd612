"""The attention U-Net: noise level and condition in every block (Ronneberger et al. 2015; Ho et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.network.conditioning import Condition, ConditionEncoder, LayoutMap, TiledMap, text_context
from calotype.nn import BlockOptions, DownBlock, UpBlock, attend, timestep_embedding
from calotype.nn.layers import group_norm, zeroed


class UNetConfig(Config):
    """Shape of a U-Net. `channels` has one width a level; each level halves the resolution of the one before.

    `skips`: the way up takes one map from each level ("level"), or one from every block, stem and downsampling of the
    way down ("block", the layout of Ho et al. and of diffusers), which costs half as much time again. The embedding of
    noise level and condition scales and shifts in every residual block, or is added (`scale_shift` false).
    `text_tokens` adds cross-attention to every word, after self-attention or within a transformer block
    (`attention_kind`). `map_channels` concatenates a map made from the condition to the input: a learned layout of
    `map_size` positions a side ("layout"), or the walkthrough's map, the same at every position, with the noise level
    in 32 channels of its own ("tiled"). `family` "diffusers" keeps to what UNet2DModel and UNet2DConditionModel can
    express: `for_data` sees to it.
    """

    family: Literal["calotype", "diffusers"] = "calotype"
    in_channels: int = 4
    channels: tuple[int, ...] = (64, 128)
    blocks_per_level: int = 1
    middle_blocks: int = 1
    middle_attention: bool = True
    skips: Literal["level", "block"] = "level"
    attention: tuple[bool, ...] = (False, True)
    attention_kind: Literal["plain", "transformer"] = "plain"
    head_channels: int = 32
    qk_norm: bool = False
    emb_channels: int = 256
    scale_shift: bool = True
    condition_channels: int = 1024
    norm_groups: int = 16
    norm_eps: float = 1e-5
    dropout: float = 0.0
    num_classes: int = 0
    text_dim: int = 0
    text_tokens: bool = False
    token_dim: int = 0
    map_channels: int = 0
    map_kind: Literal["layout", "tiled"] = "layout"
    map_size: int = 8

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse what could not be built, or would not hear its noise level (UserError)."""
        if len(self.attention) != len(self.channels):
            raise UserError(
                f"attention names {len(self.attention)} levels, channels {len(self.channels)}",
                "give one for each level",
            )
        if self.attention_kind == "transformer" and self.qk_norm:
            raise UserError("a transformer block does not normalise queries and keys", "set qk_norm=false")
        if not self.scale_shift and min(self.channels) <= self.norm_groups:
            # A constant added to a channel that is its own group is what that group's norm takes away.
            raise UserError(
                f"an added embedding is lost in groups of one channel: norm_groups is {self.norm_groups}, "
                f"the narrowest level has {min(self.channels)} channels",
                "give fewer groups, or scale_shift=true",
            )
        return self

    def for_data(
        self, *, in_channels: int, num_classes: int, text_dim: int, token_dim: int, latent_size: int
    ) -> UNetConfig:
        """The same network with inputs as the data has them; in family "diffusers" all that follows from them."""
        tokens, conditional = self.text_tokens and text_dim > 0, text_dim > 0 or num_classes > 0
        shape: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "text_dim": text_dim,
            "text_tokens": tokens,
            "token_dim": token_dim if tokens else 0,
            "map_channels": self.map_channels if conditional else 0,  # else there is nothing to lay out
            "map_size": latent_size,
            "attention_kind": self.attention_kind if tokens else "plain",
        }
        if self.family == "diffusers":
            pooled = text_dim > 0 and not tokens  # its class for pooled text has a single block in the middle
            shape |= {
                "skips": "block",
                "middle_blocks": 1 if pooled else 2,
                "middle_attention": not pooled,
                "attention_kind": "transformer" if tokens else "plain",
                "qk_norm": False,
                "emb_channels": 4 * self.channels[0],
                "condition_channels": 4 * self.channels[0],
                "map_channels": 0,
            }
        return self.model_copy(update=shape)


class UNet(nn.Module):
    """(x_t (b, c, h, w), time (b,), cond) -> prediction (b, c, h, w); h and w divisible by 2^(levels - 1)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, emb, hidden = config.channels, config.emb_channels, config.condition_channels
        options = _block_options(config)
        self.time_mlp = nn.Sequential(nn.Linear(widths[0], emb), nn.SiLU(), nn.Linear(emb, emb))
        self.condition = ConditionEncoder(hidden, num_classes=config.num_classes, text_dim=config.text_dim)
        self.from_condition = nn.Linear(hidden, emb)
        self.map = _condition_map(config)
        mapped = 0 if self.map is None else self.map.channels
        self.conv_in = nn.Conv2d(config.in_channels + mapped, widths[0], 3, padding=1)
        self.down, left = nn.ModuleList(), [widths[0]]
        for i, width in enumerate(widths):
            last, below, depth = i == len(widths) - 1, widths[max(i - 1, 0)], config.blocks_per_level
            attention = config.attention[i]
            self.down.append(
                DownBlock(below, width, depth, emb, downsample=not last, attention=attention, options=options)
            )
            left += [width] * (depth + (not last))
        self.middle = nn.ModuleList([options.residual(widths[-1], widths[-1]) for _ in range(config.middle_blocks)])
        self.middle_attention = options.attention(widths[-1]) if config.middle_attention else nn.Identity()
        self.up = nn.ModuleList()
        for i in reversed(range(len(widths))):
            if config.skips == "level":
                taken = [widths[i]] + [0] * (config.blocks_per_level - 1)
            else:
                taken = [left.pop() for _ in range(config.blocks_per_level + 1)]
            above, attention = widths[min(i + 1, len(widths) - 1)], config.attention[i]
            self.up.append(UpBlock(above, widths[i], taken, emb, upsample=i > 0, attention=attention, options=options))
        self.norm_out = group_norm(widths[0], config.norm_groups, config.norm_eps)
        self.conv_out = zeroed(nn.Conv2d(widths[0], config.in_channels, 3, padding=1))

    def forward(self, x_t: Tensor, time: Tensor, cond: Condition | None = None) -> Tensor:
        cond = Condition.nothing(len(x_t), x_t.device) if cond is None else cond
        asked = self.condition(cond)
        emb = self.time_mlp(timestep_embedding(time, self.config.channels[0])) + self.from_condition(asked)
        context = text_context(cond, _token_dim(self.config)) if self.config.text_tokens else None
        x = self.conv_in(x_t if self.map is None else torch.cat([x_t, self.map(asked, time, x_t)], dim=1))
        skips = [x] if self.config.skips == "block" else []
        for down in self.down:
            x, left = down(x, emb, context)
            skips += left if self.config.skips == "block" else left[self.config.blocks_per_level - 1 :][:1]
        for i, block in enumerate(self.middle):
            x = block(x, emb)
            x = attend(self.middle_attention, x, context) if i == 0 else x
        for up in self.up:
            x = up(x, skips, emb, context)
        return self.conv_out(F.silu(self.norm_out(x)))


def _token_dim(config: UNetConfig) -> int:
    return config.token_dim or config.text_dim


def _block_options(config: UNetConfig) -> BlockOptions:
    return BlockOptions(
        config.emb_channels,
        context_channels=_token_dim(config) if config.text_tokens else None,
        head_channels=config.head_channels,
        transformer=config.attention_kind == "transformer",
        scale_shift=config.scale_shift,
        qk_norm=config.qk_norm,
        dropout=config.dropout,
        groups=config.norm_groups,
        eps=config.norm_eps,
    )


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
