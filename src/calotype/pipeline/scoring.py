"""A small score while the denoiser trains: how far what it draws is from real pictures, by the kernel distance."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.core.random import seeded_noise
from calotype.evaluation import estimate_kernel_distance
from calotype.features import FeatureExtractor, cached_features, load_extractor
from calotype.images.dataset import PictureSet
from calotype.latents import Codec, decode_latents
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.unet import UNet
from calotype.pipeline.conditions import Conditions
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.previews import shared_rows
from calotype.pipeline.run import Run
from calotype.recipes import Recipe, SamplingSection

SAMPLES = 64
REAL = 128
MOST_STEPS = 8  # of a sampling: enough to see which of two states of a network is the better one
SAMPLER = "dpm++2m"  # good in few steps, whatever the recipe draws with in the end
FIRST_SEED = 50_000


@dataclass
class Score:
    """What is asked for, from which noise, and with which real pictures it is compared: the same at every step.

    `asked` are training pictures, evenly chosen, so that their captions and classes come in the data's proportion. Of
    several processes each draws its share.
    """

    run: Run
    recipe: Recipe
    codec: Codec
    conditions: Conditions
    pictures: PictureSet
    device: torch.device
    reporter: Reporter
    asked: Tensor = field(init=False)
    extractor: FeatureExtractor | None = field(default=None, init=False)
    real: Tensor | None = field(default=None, init=False)
    lacking: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.asked = evenly(self.pictures.train_ids, SAMPLES)

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Kernel distance of the network's samples, with its interval; nothing where the extra `eval` is missing."""
        if not self._ready():
            return {}
        features = shared_rows(len(self.asked), lambda rows: self._features(network, rows))
        assert self.real is not None
        found = estimate_kernel_distance(features, self.real)
        values = {"": found.value, "_low": found.low, "_high": found.high}
        return distributed.share({f"kernel_distance{end}": value for end, value in values.items()})

    def _ready(self) -> bool:
        """Load the extractor and take the features of the real pictures, once; False where some process cannot."""
        if self.extractor is None and not self.lacking:
            why = ""
            try:
                with torch.random.fork_rng():
                    self.extractor = load_extractor(device=self.device)
            except UserError as error:
                why = str(error)
            self.lacking = bool(distributed.total(torch.tensor([float(bool(why))])) > 0)
            if self.lacking:
                self.reporter.say(f"no kernel distance while it trains: {why or 'another process cannot take it'}")
        if self.lacking:
            return False
        if self.real is None:
            self.real = self._real_features()
        return True

    def _real_features(self) -> Tensor:
        """Features of real pictures, others than the ones asked for where there are enough; kept in the run."""
        assert self.extractor is not None
        everything = torch.arange(len(self.pictures))
        others = everything[~torch.isin(everything, self.asked)]
        chosen = evenly(others if len(others) >= SAMPLES else everything, REAL)
        features = torch.zeros(len(chosen), self.extractor.dim)
        if distributed.rank() == 0:
            features = cached_features(self.extractor, self.pictures.pixels[chosen], self.run.features)
        return distributed.total(features)

    def _features(self, network: nn.Module, rows: range) -> Tensor:
        """Features of these rows' samples; a row's seed is its number, whoever draws it."""
        assert self.extractor is not None
        assert isinstance(network, UNet)
        recipe, sampling = self.recipe, _sampling(self.recipe.sampling)
        cond = self.conditions.batch(self.asked[rows.start : rows.stop].to(self.device))
        denoiser = NetworkDenoiser(network, recipe.process.build(), recipe.loss.parameterization)
        diffuser = Diffuser(
            denoiser,
            1.0 if bool(cond.null.all()) else sampling.guidance_scale,
            sampling.num_steps,
            settings=sampling,
            null_cond=cond.dropped(),
            bound=self.codec.statistics.bound,
        )
        seeds = FIRST_SEED + torch.arange(rows.start, rows.stop)
        x0 = diffuser.reverse_diffusion(seeded_noise(seeds, 0, self.codec.latent_shape).to(self.device), cond)
        return self.extractor(decode_latents(self.codec, x0))


def _sampling(own: SamplingSection) -> SamplingSection:
    """The recipe's wrappers around a sampler of few steps."""
    if own.sampler == SAMPLER:
        return own.model_copy(update={"num_steps": min(own.num_steps, MOST_STEPS)})
    return own.model_copy(update={"sampler": SAMPLER, "num_steps": MOST_STEPS, "grid": None})


def evenly(ids: Tensor, count: int) -> Tensor:
    """At most `count` of ids (n,), evenly spread."""
    return ids if len(ids) <= count else ids[torch.arange(count) * len(ids) // count]
