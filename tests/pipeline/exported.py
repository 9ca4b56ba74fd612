"""Small models with random weights, of every kind that an export must carry."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from calotype.latents import Codec, LatentStatistics, VAEConfig, build_vae
from calotype.network.unet import UNet, UNetConfig
from calotype.pipeline import Pipeline
from calotype.pipeline.bundle import assemble
from calotype.recipes import Recipe
from calotype.text import load_text_encoder

DATA = {
    "source": "drawings",
    "pictures": 1040,
    "held_out": 40,
    "refused": 3,
    "licence": "CC BY 4.0",
    "attribution": "A. Painter",
}
CLASSES = ("disc", "big stripe", "dot")


def make_model(
    *, classes: tuple[str, ...] = (), words: bool = False, network: UNetConfig | None = None, **sections: Any
) -> Pipeline:
    """A pipeline whose parameters are all random, so that every input moves the picture."""
    torch.manual_seed(0)
    encoder = load_text_encoder("minilm") if words else None
    width, token_width = (encoder.dim, encoder.token_dim) if encoder else (0, 0)
    network = network or UNetConfig(channels=(16,), attention=(True,), condition_channels=32, emb_channels=32)
    shape = {"in_channels": 4, "num_classes": len(classes), "text_dim": width, "token_dim": token_width}
    network = network.for_data(**shape, latent_size=8)
    vae = VAEConfig(channels=(16,), encoder_blocks=(1,), decoder_blocks=(1,))
    recipe = Recipe.parse({"name": "tiny", "size": 32, "vae": {"network": vae}, "network": network, **sections}, "tiny")
    statistics = LatentStatistics(mean=(0.1, -0.2, 0.3, 0.0), std=(0.9, 1.1, 0.7, 1.3), bound=1.5)
    codec, unet = Codec(build_vae(vae), statistics, 32), UNet(network)
    randomise(unet, 0.15)
    facts = {"name": "tiny", "captioned": words, "examples": ["a red disc"] * words, "data": DATA}
    if encoder:
        facts["text_encoder"] = {"id": encoder.id, "sha256": encoder.fingerprint, "dim": width, "token_dim": width}
    return assemble(recipe, codec, unet, list(classes), facts, torch.device("cpu"))


def randomise(module: nn.Module, std: float) -> None:
    """Move every parameter: nothing stays zero, and nothing is what it was made to be."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * std)
