"""The two kinds of VAE that a codec may hold: our own, and one that diffusers trained elsewhere."""

from __future__ import annotations

from calotype.latents.pretrained import PretrainedVAE, PretrainedVAEConfig
from calotype.latents.vae import ConvVAE, VAEConfig

FirstStage = ConvVAE | PretrainedVAE
FirstStageConfig = VAEConfig | PretrainedVAEConfig


def build_vae(config: FirstStageConfig) -> FirstStage:
    """The module of `config`, its weights still random."""
    return ConvVAE(config) if isinstance(config, VAEConfig) else PretrainedVAE(config)
