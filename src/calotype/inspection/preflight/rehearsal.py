"""The parts of a run, each done once or twice on a few pictures with the real settings, and what that took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.images.dataset import PictureSet, prepare
from calotype.images.pixels import to_float
from calotype.inspection.preflight.costs import (
    StageCost,
    Work,
    check_weights,
    measure_stage,
    measure_work,
    size_of,
    tried,
    weight_bytes,
)
from calotype.inspection.preflight.listing import Listing
from calotype.inspection.preflight.resources import Use, measured
from calotype.latents import Codec, FirstStage, build_vae, encode_pictures, load_pretrained_vae
from calotype.latents.health import Health, examine
from calotype.network.unet import UNet
from calotype.pipeline import previews
from calotype.pipeline.autoencoder import load_autoencoder
from calotype.pipeline.bundle import assemble
from calotype.pipeline.captions import encode_captions
from calotype.pipeline.conditions import all_words, prepare_conditions, worded
from calotype.pipeline.gate import amiss
from calotype.pipeline.reserve import FINAL_SAMPLES, plan_ending
from calotype.pipeline.run import Run
from calotype.recipes import Recipe
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.journal import Budget
from calotype.training.vae_objective import VAEObjective

FEW = 16  # pictures of the first, smaller trial of every kind
DECODING = 5.0  # seconds that decoding the sample may take
VALIDATED, MOST_VALIDATED = 32, 256  # pictures of a trial of validation, and of a real one,
VALIDATED_AT_ONCE = 64  # of which so many are measured together
PROBED = 64  # pictures that a look at latents passes through the VAE besides those held out
LIVE = 0.5  # of a preview: half as many pictures again, of the weights that are not averaged
FEW_STEPS, MORE_STEPS = 2, 6  # of sampling that are tried


@dataclass(frozen=True)
class Parts:
    """What each part of a run costs: decoding by files, captions by distinct ones, encoding by pictures.

    `sampling` is the memory of the last sheet of samples; `health` and `finish` are seconds. `taken` says of an
    autoencoder to start from why it learns these pictures too ("": it does not); `looks` is how often all pictures are
    encoded and looked at.
    """

    decoding: Work
    captions: Work | None
    vae: StageCost | None
    encoding: Work
    health: float
    denoiser: StageCost
    sampling: Use
    finish: float
    taken: str | None = None
    looks: int = 1


@dataclass
class Rehearsal:
    """A run of a few steps on a sample. Methods are called in the order in which they stand; all is in `folder`."""

    folder: Path
    listing: Listing
    recipe: Recipe
    device: torch.device
    reporter: Reporter
    budget: Budget
    disk: dict[str, float] = field(default_factory=dict)  # bytes a picture, a caption, a run
    vae: FirstStage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.run = Run(self.folder / "run")

    def parts(self) -> Parts:
        """All of it."""
        decoding, captions = self.take_in(), self.read_captions()
        vae, encoding, health, taken = self.first_stage()
        denoiser, sampling = self.train_denoiser()
        looks = 2 if taken and self.recipe.vae.tune == "auto" else 1
        return Parts(decoding, captions, vae, encoding, health, denoiser, sampling, self.finish(), taken, looks)

    def take_in(self) -> Work:
        """Decode a sample; work by files."""
        chosen, size = self.listing.sample(), self.recipe.size
        lenient = self.recipe.data.model_copy(update={"max_refused": 1.0})
        self.reporter.stage("decoding", f"up to {len(chosen)} of {self.listing.total:,} files")

        def decode(count: int) -> None:
            source = replace(self.listing.source, pictures=chosen[:count], notes=())
            self.pictures = prepare(source, size, self.run.data, Silent(), lenient)
            self.files = count

        try:
            work = measure_work("decoding", decode, min(FEW, len(chosen)), len(chosen), self.device)
        except UserError:  # fewer than two of the first few can be read; of all perhaps more
            work = measure_work("decoding", decode, len(chosen), len(chosen), self.device)
        self.rows = round(len(self.pictures) / self.files * self.listing.total)
        self.refused = self.pictures.refused / self.files
        self.disk["pictures"] = size_of(self.run.data) / len(self.pictures)
        return work

    def read_captions(self) -> Work | None:
        """Encode the sample's captions, if they are used; work by distinct captions."""
        pictures, work = self.pictures, None
        captions = sorted({caption for caption in pictures.captions if caption is not None})
        if captions and self._uses_captions():
            self.reporter.stage("captions", f"{len(captions)} of {self.listing.captions:,} distinct ones")

            def encode(count: int) -> None:  # the first few again: they are a run's own, and not taken over
                folder = Run(self.folder / f"captions-{count}" / "run")
                words = all_words(worded(captions[:count], self.recipe))
                encode_captions(folder, self.recipe, words, Silent(), beside=())
                self.disk["captions"] = size_of(folder.captions) / count

            work = measure_work("captions", encode, min(2, len(captions)), len(captions), self.device)
        self.conditions = prepare_conditions(self.run, self.recipe, pictures, Silent())
        recipe = self.conditions.fill(self.recipe)
        classes = self.listing.classes if self.conditions.classes else []
        flip = self.listing.mirrored if recipe.loss.flip is None else recipe.loss.flip
        loss = recipe.loss.model_copy(update={"flip": flip})
        network = recipe.network.model_copy(update={"num_classes": len(classes)})
        self.classes, self.recipe = classes, recipe.model_copy(update={"loss": loss, "network": network})
        return work

    def _uses_captions(self) -> bool:
        return self.recipe.condition == "auto" or "text" in self.recipe.condition

    def first_stage(self) -> tuple[StageCost | None, Work, float, str | None]:
        """The first stage's training (None where it comes trained), encoding and look; and `Parts.taken`."""
        section = self.recipe.vae
        if section.pretrained is not None:
            self.vae = load_pretrained_vae(section.pretrained).to(self.device)
            return None, self.encode(), self.examine()[0], None
        if section.taken is None:
            return self.train_vae(), self.encode(), self.examine()[0], None
        self.vae = load_autoencoder(section.taken).to(self.device)
        encoding, (health, found) = self.encode(), self.examine()
        why = {"auto": amiss(found), "always": "vae.tune=always", "never": ""}[section.tune]
        return self.train_vae() if why else None, encoding, health, why

    def train_vae(self) -> StageCost:
        """A few steps of the first stage, from nothing or from the autoencoder that was taken."""
        recipe, pictures = self.recipe, self.pictures
        check_weights(lambda: build_vae(recipe.vae.network), "vae", recipe.vae.training, self.device)
        self.reporter.stage("vae", f"steps of {recipe.vae.training.batch_size} pictures")
        if recipe.vae.taken is None:
            with torch.random.fork_rng():
                torch.manual_seed(recipe.seed)
                self.vae = build_vae(recipe.vae.network).to(self.device)
        self.vae.train().requires_grad_(True)
        shown = torch.arange(min(len(pictures), VALIDATED))
        objective = VAEObjective(
            self.vae, recipe.vae.loss, self._images, pictures.train_ids, shown, recipe.seed, self.device
        )
        objective.adversarial = objective.auxiliary is not None  # as it will be once the discriminator has joined
        engine, cost = measure_stage(objective, recipe.vae.training, self.folder / "vae", recipe.seed, self.device)
        averaged, sheet = engine.ema.network, self.folder / "vae.png"
        assert isinstance(averaged, FirstStage)
        with tried("validation of the vae"), measured(self.device) as use:
            objective.validate(averaged)
        looked_at = min(MOST_VALIDATED, self.held_out) or min(64, self.rows)
        preview = self._seconds(
            lambda: previews.reconstructions(averaged, pictures, previews.shown_ids(pictures), sheet)
        )
        self.disk["vae sheet"] = sheet.stat().st_size
        self.vae = averaged
        highest = use.base + (use.peak - use.base) * VALIDATED_AT_ONCE / len(shown)
        seconds = use.seconds * looked_at / len(shown)
        return replace(cost, validation=seconds, validation_memory=highest, preview=preview)

    def encode(self) -> Work:
        """Pictures through the VAE; work by pictures."""
        self.reporter.stage("latents", f"{len(self.pictures)} of {self.rows:,} pictures")
        everyone, flip = self.pictures, bool(self.recipe.loss.flip)

        def encode(count: int) -> None:
            self.pictures, folder = first_of(everyone, count), self.folder / f"latents-{count}"
            self.latents = encode_pictures(self.vae, self.pictures, folder, mirrored=flip, reporter=Silent())
            self.disk["latents"] = size_of(folder) / count

        work = measure_work("encoding", encode, min(FEW, len(everyone)), len(everyone), self.device)
        self.codec = Codec(self.vae, self.latents.statistics, self.recipe.size).to(self.device)
        return work

    def examine(self) -> tuple[float, Health]:
        """Seconds that looking at the latents takes, and what is found."""
        self.reporter.stage("health", "of the latents")
        with tried("a look at the latents"), measured(self.device) as use:
            found = examine(self.codec, self.latents, self.pictures, given=self.recipe.vae.taken is not None)
        here = min(len(self.pictures.held_out_ids), MOST_VALIDATED) + PROBED
        return use.seconds * (min(self.held_out, MOST_VALIDATED) + PROBED) / here, found

    def train_denoiser(self) -> tuple[StageCost, Use]:
        """A few steps of the second stage, and the memory of its last sheet of samples."""
        recipe, config, pictures = self.recipe, self.recipe.training, self.pictures
        check_weights(lambda: UNet(recipe.network), "denoiser", config, self.device)
        self.reporter.stage("denoiser", f"steps of {config.batch_size} pictures")
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed + 1)
            network = UNet(recipe.network).to(self.device)
        conditions = self.conditions.to(self.device)
        if conditions.unique is not None:
            network.condition.fit_text(conditions.training_text(pictures).to(self.device))
        everyone = torch.arange(len(pictures))
        objective = DenoiserObjective(
            network,
            recipe.process.build(),
            recipe.loss,
            self.latents,
            conditions.batch,
            everyone,
            everyone[:0],
            recipe.seed,
            self.device,
        )
        engine, cost = measure_stage(objective, config, self.folder / "denoiser", recipe.seed, self.device)
        with tried("validation of the denoiser"), measured(self.device) as use:
            objective.validate(engine.ema.network)
        looked_at = sum(min(MOST_VALIDATED, count) for count in (self.held_out, self.rows - self.held_out))
        averaged = engine.ema.network
        assert isinstance(averaged, UNet)
        sampling, highest = self._sample(averaged)
        self.disk["bundle"] = weight_bytes(self.vae) + weight_bytes(averaged)
        validation = use.seconds * looked_at / min(len(everyone), MOST_VALIDATED)
        return replace(cost, validation=validation, validation_memory=use.peak, preview=sampling), highest

    def finish(self) -> float:
        """Seconds that the last samples, the bundle, the scores if there are any, and the report take."""
        with tried("sampling"):
            return plan_ending(self.recipe, self.device, self.budget).seconds

    def _sample(self, network: UNet) -> tuple[float, Use]:
        """Seconds of a preview by the recipe's sampler, and the memory that as many pictures as at the end take."""
        recipe, sheet = self.recipe, self.folder / "samples.png"
        self.reporter.stage("sampling", f"{recipe.sampling.sampler}, {recipe.sampling.num_steps} steps")

        def draw(num_steps: int, limit: int = 16) -> None:
            model = assemble(recipe, self.codec, network, self.classes, self.conditions.facts, self.device)
            previews.samples(model, sheet, limit=limit, num_steps=num_steps)

        with tried("sampling"), measured(self.device) as highest:
            draw(1, FINAL_SAMPLES)
        self.disk["denoiser sheet"] = sheet.stat().st_size
        most = min(MORE_STEPS, recipe.sampling.num_steps)
        work = measure_work("sampling", draw, min(FEW_STEPS, most), most, self.device)
        seconds = work.seconds.at(min(recipe.sampling.num_steps, previews.MAX_STEPS))
        return (1 + LIVE) * seconds, highest

    @property
    def held_out(self) -> int:
        """Pictures that are not trained on, nearly."""
        return round(self.listing.held_out_share * self.rows)

    def _images(self, ids: Tensor) -> Tensor:
        return to_float(self.pictures.pixels[ids])

    def _seconds(self, work: Callable[[], object]) -> float:
        started = time.monotonic()
        work()
        return time.monotonic() - started


def first_of(pictures: PictureSet, count: int) -> PictureSet:
    """The first rows of a set."""
    columns = ("pixels", "names", "captions", "labels", "held_out", "digests", "crops")
    return replace(pictures, **{name: getattr(pictures, name)[:count] for name in columns})
