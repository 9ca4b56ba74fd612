"""What a recipe is made of, and the list of those there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from calotype.core.config import Config
from calotype.core.errors import UserError, nearest
from calotype.images.settings import PictureConfig
from calotype.latents import FirstStageConfig, VAEConfig
from calotype.network.unet import UNetConfig
from calotype.process import Process, check_density, check_prior, check_weighting, process_from_config
from calotype.sampling import get_sampler
from calotype.sampling.grids import GridKind
from calotype.training.adversarial import SMALLEST_JUDGED
from calotype.training.denoiser_objective import DenoiserLossConfig
from calotype.training.settings import LoopConfig
from calotype.training.vae_objective import VAELossConfig


class VAESection(Config):
    """Stage one. `steps` holds under --steps; under --minutes the stage gets `share` of the time.

    `from` (`origin` in Python) names the model whose VAE to start with: a shipped one, a run or a bundle; "scratch" is
    none. `tune`: whether that learns these pictures too: "auto" where the gate's look at what it gives asks for it.
    `pretrained` names a diffusers AutoencoderKL or AutoencoderTiny, by folder or hub id, that is used as it is instead;
    `network` is then its config. A model exports to diffusers with `network.family` "diffusers" or a pretrained
    AutoencoderKL, to ONNX with any. `gate`: what latents that are not fit to learn from do to the run.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    origin: str = Field("scratch", alias="from", min_length=1)
    tune: Literal["auto", "always", "never"] = "auto"
    pretrained: str | None = None
    steps: int = Field(3000, ge=1)
    share: float = Field(0.4, gt=0, lt=1)
    gate: Literal["refuse", "warn", "skip"] = "refuse"
    network: FirstStageConfig = VAEConfig()
    loss: VAELossConfig = VAELossConfig()
    training: LoopConfig = LoopConfig()

    @property
    def taken(self) -> str | None:
        """The autoencoder to start with, by name or path; None where the first stage starts from nothing of ours."""
        return None if self.origin == "scratch" else self.origin

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        """Refuse two origins at once (UserError)."""
        if self.pretrained is not None and self.taken is not None:
            raise UserError(f"vae.from={self.origin} beside vae.pretrained={self.pretrained}", "leave one of them out")
        if self.tune != "auto" and self.taken is None:
            raise UserError(
                f"vae.tune={self.tune} is about an autoencoder to start from, and there is none",
                "name one with --set vae.from=..., or leave it out",
            )
        return self


class ProcessSection(Config):
    """The noise process: a schedule of the variance-preserving family, or one of the other families.

    The rest are settings of single schedules (null: its own default); one that the schedule does not have is refused.
    """

    schedule: Literal["linear", "scaled-linear", "cosine", "angle", "rectified-flow", "variance-exploding"] = "cosine"
    num_train_steps: int | None = Field(None, ge=2)
    beta_start: float | None = None
    beta_end: float | None = None
    zero_terminal_snr: bool | None = None
    t_max: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None

    def build(self) -> Process:
        """The process object that owns signal_rate and noise_rate. UserError if it never reaches its prior."""
        values = self.model_dump(exclude_none=True)
        schedule = values.pop("schedule")
        if schedule in ("rectified-flow", "variance-exploding"):
            process = process_from_config({"kind": schedule, **values})
        else:
            process = process_from_config({"kind": "variance-preserving", "schedule": schedule, **values})
        check_prior(process)
        return process


class SamplingSection(Config):
    """How the model is sampled unless told otherwise; `grid` null is the sampler's own."""

    sampler: str = "dpm++2m"
    num_steps: int = Field(20, ge=1)
    grid: GridKind | None = None
    shift: float = Field(1.0, ge=1)
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    autoguidance_scale: float = 2.0
    threshold: Literal["none", "dynamic", "static"] = "none"
    percentile: float = Field(99.5, gt=0, le=100)


class Recipe(Config):
    """A whole run: pictures of `size` pixels -> VAE -> latents -> denoiser -> samples."""

    name: str
    size: int = Field(ge=8)
    seed: int = 0
    data: PictureConfig = PictureConfig()
    condition: Literal["auto", "text", "label", "text+label", "none"] = "auto"
    text_encoder: str = "minilm"
    vae: VAESection = VAESection()
    process: ProcessSection = ProcessSection()
    network: UNetConfig = UNetConfig()
    loss: DenoiserLossConfig = DenoiserLossConfig()
    training: LoopConfig = LoopConfig()
    sampling: SamplingSection = SamplingSection()

    def with_overrides(self, assignments: list[str]) -> Self:
        """As of any config; but with another schedule or density, levels are visited as suits that, not as here."""
        names = {assignment.partition("=")[0].strip() for assignment in assignments}
        if names.isdisjoint({"process.schedule", "loss.density"}):
            return super().with_overrides(assignments)
        loss = self.loss.model_copy(update=dict.fromkeys(("density", "density_loc", "density_scale")))
        return super(Recipe, self.model_copy(update={"loss": loss})).with_overrides(assignments)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse before anything is trained what could not be trained or sampled in the end (UserError)."""
        loss = self.loss
        check_weighting(loss.weighting, loss.parameterization, self.process.build(), loss.density)
        if loss.density is not None:
            check_density(loss.density, loc=loss.density_loc, scale=loss.density_scale)
        if self.process.schedule == "variance-exploding" and loss.parameterization not in ("edm", "x0"):
            raise UserError(
                f"{loss.parameterization}-prediction has no steady scale on a variance-exploding process",
                "--set loss.parameterization=edm",
            )
        if self.vae.loss.adversarial_weight and self.size < SMALLEST_JUDGED:
            raise UserError(
                f"a discriminator cannot judge pictures of {self.size} pixels",
                f"choose --size {SMALLEST_JUDGED} or more, or vae.loss.adversarial_weight=0",
            )
        get_sampler(self.sampling.sampler)
        return self


def get_recipe(name: str, size: int) -> Recipe:
    """The named recipe for pictures of this size; an unknown name is refused with the nearest known one."""
    from calotype.recipes.calotype import calotype
    from calotype.recipes.ddpm_64 import ddpm_64
    from calotype.recipes.text_128 import text_128

    recipes: dict[str, Callable[[int], Recipe]] = {"calotype": calotype, "ddpm-64": ddpm_64, "text-128": text_128}
    if name not in recipes:
        raise UserError(f"unknown recipe '{name}'", nearest(name, recipes))
    return recipes[name](size)
