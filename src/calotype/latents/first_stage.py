"""The two kinds of VAE that a codec may hold: our own, and one that diffusers trained elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from calotype.latents.pretrained import PretrainedVAE, PretrainedVAEConfig
from calotype.latents.vae import ConvVAE, VAEConfig

FirstStage = ConvVAE | PretrainedVAE
# Told apart by `family`, so that a wrong key is looked for among those of the family that was meant.
FirstStageConfig = Annotated[VAEConfig | PretrainedVAEConfig, Field(discriminator="family")]


def build_vae(config: FirstStageConfig) -> FirstStage:
    """The module of `config`, its weights still random."""
    return ConvVAE(config) if isinstance(config, VAEConfig) else PretrainedVAE(config)
