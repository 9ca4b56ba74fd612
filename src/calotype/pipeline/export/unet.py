"""Our U-Net as diffusers' UNet2DModel or UNet2DConditionModel: the same weights under other names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.network.conditioning import Condition, text_context
from calotype.network.unet import UNet, UNetConfig
from calotype.pipeline.export.renaming import ATTENTION, BLOCK, TRANSFORMER, Names, renamed, within

MEND = "--set network.family=diffusers"


def why_not_unet(config: UNetConfig) -> str:
    """What no U-Net of diffusers computes, in words; "" when one does."""
    tokens, pooled = config.text_tokens, config.text_dim > 0 and not config.text_tokens
    middle = (1, False) if pooled else (2, True) if tokens else (2, config.middle_attention)
    reasons = {
        "the skips of its U-Net join whole levels": config.skips != "block",
        "its U-Net joins a condition map to its input": config.map_channels > 0,
        "the attention of its U-Net normalises queries and keys": config.qk_norm,
        "its U-Net looks at words outside of transformer blocks": tokens and config.attention_kind != "transformer",
        f"the middle of its U-Net has {config.middle_blocks} blocks": config.middle_blocks != middle[0],
        f"the middle of its U-Net has {'' if config.middle_attention else 'no '}attention": (
            config.middle_attention != middle[1]
        ),
        f"the {config.norm_groups} norm groups of its U-Net do not divide all widths": any(
            width % config.norm_groups for width in config.channels
        ),
        "the heads of its U-Net are not of one width": not tokens and len(set(_head_dims(config))) > 1,
        "the condition vector of its U-Net is not as wide as its embedding": (
            config.text_dim > 0 and config.condition_channels != config.emb_channels
        ),
        "the first width of its U-Net is odd": config.channels[0] % 2 == 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def to_diffusers(network: UNet, sample_size: int | None = None) -> Any:
    """The stock module that computes what `network` does, in float32 on the CPU, given `diffusers_arguments`.

    Unconditional and classes alone: UNet2DModel; with text: UNet2DConditionModel, whose class projection takes the row
    [pooled text | one-hot class | 1 if there is a text | 1 if nothing is asked for] through the same silu:
    W (W_c row) with W_c = [A | labels | b - A mean | null], A = W_text whitening^T. Tokens go to its cross-attention.
    UserError where `why_not_unet` has a reason.
    """
    from diffusers import UNet2DConditionModel, UNet2DModel

    config = network.config
    if why := why_not_unet(config):
        raise UserError(f"diffusers cannot express this model: {why}", f"train with {MEND}")
    state = {name: tensor.detach().cpu().float() for name, tensor in network.state_dict().items()}
    weights = renamed(state, unet_names(config))
    if config.text_dim:
        model: Any = UNet2DConditionModel(**_conditional_settings(config, sample_size))
        weights |= _projection(state, config)
    else:
        model = UNet2DModel(**_settings(config, sample_size))
        labels = [state["condition.label.weight"]] if config.num_classes else []
        hidden = torch.cat([*labels, state["condition.null"][None]])
        table = nn.functional.silu(hidden) @ state["from_condition.weight"].T + state["from_condition.bias"]
        if config.num_classes:
            weights["class_embedding.weight"] = table
        else:
            weights["time_embedding.linear_2.bias"] = weights["time_embedding.linear_2.bias"] + table[0]
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def diffusers_arguments(network: UNet, cond: Condition) -> dict[str, Tensor | None]:
    """The keywords that ask the stock module for `cond` (b rows)."""
    config = network.config
    if config.text_dim:
        asked: dict[str, Tensor | None] = {"class_labels": condition_rows(network, cond), "encoder_hidden_states": None}
        if config.text_tokens:
            tokens, mask = text_context(cond, config.token_dim or config.text_dim)
            asked |= {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}
        return asked
    if not config.num_classes:
        return {}
    label = torch.full_like(cond.null, -1, dtype=torch.long) if cond.label is None else cond.label
    return {"class_labels": torch.where(cond.null, config.num_classes, label)}


def condition_rows(network: UNet, cond: Condition) -> Tensor:
    """[pooled text (d) | one-hot class (k) | texted | null] (b, d + k + 2), float32; a null row is null alone.

    Text is within reach of the training captions (eq. 53), which is not linear and so no part of the stock module.
    """
    config = network.config
    asked, texted = ~cond.null, torch.zeros_like(cond.null)
    pooled = torch.zeros(len(cond), config.text_dim, device=cond.null.device)
    if cond.text is not None:
        texted = cond.with_text & asked
        pooled = network.condition.within_reach(cond.text.pooled.float()) * texted[:, None]
    label = torch.full_like(cond.null, -1, dtype=torch.long) if cond.label is None else cond.label
    classes = torch.arange(config.num_classes, device=label.device) == label[:, None]
    flags = [classes & asked[:, None], texted[:, None], cond.null[:, None]]
    return torch.cat([pooled, *(flag.float() for flag in flags)], dim=1)


def unet_names(config: UNetConfig) -> Names:
    """Our modules and theirs, of all that does not depend on the condition."""
    names: list[tuple[str, tuple[str, ...]]] = [
        ("time_mlp.0", ("time_embedding.linear_1",)),
        ("time_mlp.2", ("time_embedding.linear_2",)),
        ("conv_in", ("conv_in",)),
        ("norm_out", ("conv_norm_out",)),
        ("conv_out", ("conv_out",)),
    ]
    attention = TRANSFORMER if config.text_tokens else ATTENTION
    for side, depth in (("down", config.blocks_per_level), ("up", config.blocks_per_level + 1)):
        for i in range(len(config.channels)):
            theirs = f"{side}_blocks.{i}"
            for j in range(depth):
                names += within(f"{side}.{i}.blocks.{j}", f"{theirs}.resnets.{j}", BLOCK)
                names += within(f"{side}.{i}.attentions.{j}", f"{theirs}.attentions.{j}", attention)
            names.append((f"{side}.{i}.resample", (f"{theirs}.{side}samplers.0.conv",)))
    for i in range(config.middle_blocks):
        names += within(f"middle.{i}", f"mid_block.resnets.{i}", BLOCK)
    return names + list(within("middle_attention", "mid_block.attentions.0", attention))


def _projection(state: dict[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The class projection's weights: `ConditionEncoder` as one matrix, the whitening folded in; float64 inside."""
    wide = {name.removeprefix("condition."): tensor.double() for name, tensor in state.items()}
    pooled = wide["text.weight"] @ wide["text_whitening"].T
    texted = wide["text.bias"] - pooled @ wide["text_mean"]
    labels = [wide["label.weight"].T] if config.num_classes else []
    matrix = torch.cat([pooled, *labels, texted[:, None], wide["null"][:, None]], dim=1).float()
    return {
        "class_embedding.linear_1.weight": matrix,
        "class_embedding.linear_1.bias": torch.zeros(len(matrix)),
        "class_embedding.linear_2.weight": state["from_condition.weight"],
        "class_embedding.linear_2.bias": state["from_condition.bias"],
    }


def _head_dims(config: UNetConfig) -> list[int]:
    """Channels per head wherever there is attention."""
    attended = [c for c, attention in zip(config.channels, config.attention) if attention]
    attended += [config.channels[-1]] * config.middle_attention
    return [c // _heads(config, c) for c in attended]


def _heads(config: UNetConfig, channels: int) -> int:
    return max(1, channels // config.head_channels)


def _shared_settings(config: UNetConfig, sample_size: int | None, attended: str) -> dict[str, Any]:
    down = [f"{attended}DownBlock2D" if attention else "DownBlock2D" for attention in config.attention]
    return {
        "sample_size": sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
        "block_out_channels": config.channels,
        "layers_per_block": config.blocks_per_level,
        "attention_head_dim": next(iter(_head_dims(config)), config.head_channels),
        "norm_num_groups": config.norm_groups,
        "norm_eps": config.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "time_embedding_dim": config.emb_channels,
        "dropout": config.dropout,
    }


def _settings(config: UNetConfig, sample_size: int | None) -> dict[str, Any]:
    """UNet2DModel's. Without attn_norm_num_groups it drops the middle attention's norm under scale_shift."""
    return {
        **_shared_settings(config, sample_size, "Attn"),
        "attn_norm_num_groups": config.norm_groups,
        "add_attention": config.middle_attention,
        "num_class_embeds": config.num_classes + 1 if config.num_classes else None,  # the last asks for nothing
    }


def _conditional_settings(config: UNetConfig, sample_size: int | None) -> dict[str, Any]:
    """UNet2DConditionModel's. Its attention_head_dim counts channels in AttnDownBlock2D, but heads where it crosses."""
    settings = {
        **_shared_settings(config, sample_size, "CrossAttn" if config.text_tokens else "Attn"),
        "mid_block_type": "UNetMidBlock2DCrossAttn" if config.text_tokens else "UNetMidBlock2D",
        "cross_attention_dim": config.token_dim or config.text_dim,
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": config.text_dim + config.num_classes + 2,
    }
    if config.text_tokens:
        settings["attention_head_dim"] = tuple(_heads(config, c) for c in config.channels)
    return settings
