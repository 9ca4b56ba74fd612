"""What a recipe is made of, and the list of those there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from calotype.core.config import Config
from calotype.core.errors import UserError, nearest
from calotype.latents import VAEConfig
from calotype.network.unet import UNetConfig
from calotype.process import Process, process_from_config
from calotype.training.loop import LoopConfig
from calotype.training.objectives import DenoiserLossConfig, VAELossConfig


class VAESection(Config):
    """Stage one. `steps` holds under --steps; under --minutes the stage gets `share` of the time."""

    steps: int = Field(3000, ge=1)
    share: float = Field(0.4, gt=0, lt=1)
    network: VAEConfig = VAEConfig()
    loss: VAELossConfig = VAELossConfig()
    training: LoopConfig = LoopConfig()


class ProcessSection(Config):
    """The noise process: a variance-preserving schedule over `num_train_steps` levels."""

    schedule: Literal["linear", "cosine"] = "cosine"
    num_train_steps: int = Field(1000, ge=2)

    def build(self) -> Process:
        """The process object that owns signal_rate and noise_rate."""
        return process_from_config({"kind": "variance-preserving", **self.model_dump()})


class SamplingSection(Config):
    """How the model is sampled unless told otherwise."""

    sampler: str = "dpm++2m"
    num_steps: int = Field(20, ge=1)
    guidance_scale: float = 3.0


class Recipe(Config):
    """A whole run: pictures of `size` pixels -> VAE -> latents -> denoiser -> samples."""

    name: str
    size: int = Field(ge=8)
    seed: int = 0
    condition: Literal["auto", "text", "label", "none"] = "auto"
    text_encoder: str = "minilm"
    vae: VAESection = VAESection()
    process: ProcessSection = ProcessSection()
    network: UNetConfig = UNetConfig()
    loss: DenoiserLossConfig = DenoiserLossConfig()
    training: LoopConfig = LoopConfig()
    sampling: SamplingSection = SamplingSection()


def get_recipe(name: str, size: int) -> Recipe:
    """The named recipe for pictures of this size; an unknown name is refused with the nearest known one."""
    from calotype.recipes.calotype import calotype

    recipes: dict[str, Callable[[int], Recipe]] = {"calotype": calotype}
    if name not in recipes:
        raise UserError(f"unknown recipe '{name}'", nearest(name, recipes))
    return recipes[name](size)
