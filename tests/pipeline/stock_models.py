"""Small models of the exportable families, every weight random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from calotype.core.types import TextEmbedding
from calotype.latents import Codec, LatentStatistics, build_vae
from calotype.network import UNet
from calotype.pipeline import Pipeline
from calotype.pipeline.bundle import assemble
from calotype.recipes import Recipe
from tests.pipeline.test_export_diffusers_unet import config, scrambled

VAE = {"family": "diffusers", "channels": [8, 16, 16], "norm_groups": 8}


class Letters:
    """Captions as counts of letters, their tokens as letters."""

    id, fingerprint, dim, token_dim = "letters", "none", 12, 20

    def encode(self, captions: Sequence[str]) -> TextEmbedding:
        letters = torch.zeros(len(captions), max(len(c) for c in captions), self.token_dim)
        mask = torch.zeros(letters.shape[:2], dtype=torch.bool)
        for row, caption in enumerate(captions):
            codes = torch.tensor([ord(letter) % self.token_dim for letter in caption])
            letters[row, torch.arange(len(codes)), codes], mask[row, : len(codes)] = 1, True
        return TextEmbedding(letters.sum(1)[:, : self.dim], letters, mask)


def stock_model(
    *, classes: tuple[str, ...] = (), words: bool = False, tokens: bool = False, **sections: Any
) -> Pipeline:
    """A pipeline of 32 px and latents of 4 x 8 x 8 that stock diffusers can express."""
    network = config(classes=len(classes), text=12 * words, tokens=20 * tokens)
    values = {"name": "tiny", "size": 32, "vae": {"network": VAE}, "network": network, **sections}
    recipe = Recipe.parse(values, "the test")
    statistics = LatentStatistics(mean=(0.1, -0.2, 0.3, 0.0), std=(0.9, 1.1, 0.7, 1.3), bound=1.5)
    vae, unet = build_vae(recipe.vae.network), UNet(network)
    scrambled(vae)
    scrambled(unet)
    facts = {"name": "tiny", "captioned": words, "examples": ["a red disc", "an owl"] * words}
    facts["data"] = {"source": "drawings", "licence": "CC BY 4.0", "attribution": "A. Painter"}
    model = assemble(recipe, Codec(vae, statistics, 32), unet, list(classes), facts, torch.device("cpu"))
    if words:
        model.__dict__["text_encoder"] = Letters()
    return model
