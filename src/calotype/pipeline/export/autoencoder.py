"""A codec as diffusers' AutoencoderKL: the standardisation of the latents goes into the two 1x1 convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.latents import Codec, FirstStageConfig, PretrainedVAEConfig, VAEConfig
from calotype.pipeline.export.renaming import ATTENTION, BLOCK, Names, renamed, within

MEND = "--set vae.network.family=diffusers"


def why_not_autoencoder(config: FirstStageConfig) -> str:
    """Why no AutoencoderKL computes this VAE, in words; "" when one does."""
    if isinstance(config, VAEConfig):
        return config.why_not_diffusers()
    if config.family != "AutoencoderKL":
        return f"its VAE is an {config.family}, into which the standardisation of the latents cannot be folded"
    return ""


def to_autoencoder_kl(codec: Codec) -> Any:
    """The AutoencoderKL that takes pictures to standardised latents and back, float32 on the CPU; scaling_factor 1.

    Its first convolution gives mean' = (mean - m)/s and logvar' = logvar - 2 ln s, its last z_raw = s x0 + m, with the
    codec's mean m and std s. So every stock pipeline decodes right. UserError where `why_not_autoencoder` has a reason.
    """
    from diffusers import AutoencoderKL

    config = codec.vae.config
    if why := why_not_autoencoder(config):
        raise UserError(f"diffusers cannot express this model: {why}", f"train with {MEND}")
    state = {name: tensor.detach().cpu().float() for name, tensor in codec.vae.state_dict().items()}
    if isinstance(config, PretrainedVAEConfig):
        settings = dict(config.settings)
        weights = {name.removeprefix("autoencoder."): tensor for name, tensor in state.items()}
    else:
        settings, weights = _settings(config), renamed(state, autoencoder_names(config))
    settings |= {"sample_size": codec.image_size, "scaling_factor": 1.0, "use_quant_conv": True}
    settings |= {"use_post_quant_conv": True, "shift_factor": None, "latents_mean": None, "latents_std": None}
    model: Any = AutoencoderKL(**settings)
    model.load_state_dict(weights | _standardised(weights, codec))
    return model.eval().requires_grad_(False)


def autoencoder_names(config: VAEConfig) -> Names:
    """Our modules and theirs, of family "diffusers"."""
    names: list[tuple[str, tuple[str, ...]]] = []
    depth = config.blocks or 1
    for coder, side, blocks in (("encoder", "down", depth), ("decoder", "up", depth + 1)):
        for i in range(len(config.widths)):
            theirs = f"{coder}.{side}_blocks.{i}"
            for j in range(blocks):
                names += within(f"{coder}.{side}.{i}.blocks.{j}", f"{theirs}.resnets.{j}", BLOCK)
            names.append((f"{coder}.{side}.{i}.resample", (f"{theirs}.{side}samplers.0.conv",)))
        for i in range(2):
            names += within(f"{coder}.middle.{i}", f"{coder}.mid_block.resnets.{i}", BLOCK)
        names += within(f"{coder}.attention", f"{coder}.mid_block.attentions.0", ATTENTION)
        names += [
            (f"{coder}.conv_in", (f"{coder}.conv_in",)),
            (f"{coder}.norm_out", (f"{coder}.conv_norm_out",)),
            (f"{coder}.conv_out", (f"{coder}.conv_out",)),
        ]
    return names


def _settings(config: VAEConfig) -> dict[str, Any]:
    levels = len(config.widths)
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": config.widths,
        "layers_per_block": config.blocks or 1,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "mid_block_add_attention": config.middle_attention is not False,
    }


def _standardised(weights: dict[str, Tensor], codec: Codec) -> dict[str, Tensor]:
    """quant_conv and post_quant_conv, each after (before) the one there is, or the identity; float64 inside."""
    mean, std = (torch.tensor(values).double() for values in (codec.statistics.mean, codec.statistics.std))
    scale = torch.cat([1 / std, torch.ones_like(std)])
    shift = torch.cat([-mean / std, -2 * torch.log(std)])
    into, into_bias = _pointwise(weights, "quant_conv", 2 * len(mean))
    out, out_bias = _pointwise(weights, "post_quant_conv", len(mean))
    folded = {
        "quant_conv.weight": (scale[:, None] * into)[:, :, None, None],
        "quant_conv.bias": scale * into_bias + shift,
        "post_quant_conv.weight": (out * std)[:, :, None, None],
        "post_quant_conv.bias": out_bias + out @ mean,
    }
    return {name: tensor.float() for name, tensor in folded.items()}


def _pointwise(weights: dict[str, Tensor], name: str, width: int) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a 1x1 convolution; the identity where there is none."""
    if f"{name}.weight" not in weights:
        return torch.eye(width).double(), torch.zeros(width).double()
    return weights[f"{name}.weight"][:, :, 0, 0].double(), weights[f"{name}.bias"].double()
