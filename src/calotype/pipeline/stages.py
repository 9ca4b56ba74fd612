"""The whole path: pictures -> VAE -> latents -> denoiser -> bundle. Each stage is done, or continued, or skipped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import torch
from torch import nn

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.images.source import Data
from calotype.latents import (
    Codec,
    FirstStage,
    LatentSet,
    PretrainedVAE,
    build_vae,
    load_pretrained_vae,
)
from calotype.network.unet import UNet, count_parameters
from calotype.pipeline import previews
from calotype.pipeline.bundle import assemble, load, save_bundle
from calotype.pipeline.conditions import Conditions, prepare_conditions
from calotype.pipeline.gate import pass_gate
from calotype.pipeline.intake import mirrored, take_in
from calotype.pipeline.latents import latents_of
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.reserve import FINAL_SAMPLES, finish_seconds
from calotype.pipeline.run import Run, spent_on
from calotype.process import terminal_snr
from calotype.recipes import Recipe
from calotype.training.checkpoint import newest_checkpoint
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.journal import Budget, Journal
from calotype.training.loop import LoopConfig, StageRun, train_stage
from calotype.training.metrics import Metrics, last_measures
from calotype.training.objective import Objective
from calotype.training.vae_objective import VAEObjective

LEAST_SHARE = 0.5  # of the denoiser's share of a timed run that it gets even when the first stage came late


@dataclass
class Stages:
    """One run on its way. Methods are called in the order in which they stand."""

    run: Run
    recipe: Recipe
    budget: Budget
    device: torch.device
    reporter: Reporter
    started: float
    trained_for: float = field(default=0.0, init=False)

    def run_all(self, data: Data, from_model: str | Path | None) -> None:
        """Every stage in turn."""
        pictures = take_in(self.run, self.recipe, data, self.reporter)
        conditions = prepare_conditions(self.run, self.recipe, pictures, self.reporter)
        loss = self.recipe.loss.model_copy(update={"flip": mirrored(self.recipe, pictures, self.reporter)})
        self.recipe = conditions.fill(self.recipe).model_copy(update={"loss": loss})
        start = load(from_model, "cpu") if from_model is not None else None
        if start is not None and start.recipe.network != self.recipe.network:
            raise UserError(
                f"{from_model} does not fit this data: its network takes other conditions or another size",
                "start from a model of the same --size, with captions if these pictures have them, or leave --from out",
            )
        self.journal = Journal(self.run.journal)
        self.journal.request(self.budget)
        vae = self.vae(pictures, start)
        distributed.barrier()  # those who `assist` wait for the VAE
        flip = bool(self.recipe.loss.flip)
        latents = latents_of(self.run, pictures, vae, mirrored=flip, from_model=from_model, reporter=self.reporter)
        codec = Codec(vae, latents.statistics, self.recipe.size).to(self.device)
        pass_gate(self.run, self.recipe, codec, latents, pictures, self.budget, self.reporter)
        network = self.denoiser(pictures, conditions, latents, codec, start)
        self.finish(conditions, codec, network)

    def vae(self, pictures: PictureSet, start: Pipeline | None) -> FirstStage:
        """Train the VAE, or take the one that was named, and freeze it."""
        recipe = self.recipe
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            vae = build_vae(recipe.vae.network).to(self.device)
        if start is not None:
            vae.load_state_dict(start.codec.vae.state_dict())
        elif recipe.vae.pretrained is not None and newest_checkpoint(self.run.vae, self.reporter) is None:
            vae.load_state_dict(load_pretrained_vae(recipe.vae.pretrained).state_dict())
        if not self.journal.segments("vae"):
            if start is not None or recipe.vae.pretrained is not None:
                self.journal.add("segment", stage="vae", start=0, end=0)
            elif self.budget.minutes is None:
                self.journal.add("segment", stage="vae", start=0, end=recipe.vae.steps)
            else:
                usable = 60 * self.budget.minutes - self._overhead() - finish_seconds(recipe, self.device)
                seconds = recipe.vae.share * max(usable, 1.0)
                self.journal.add("segment", stage="vae", start=0, seconds=round(seconds, 1))
        objective = VAEObjective(
            vae,
            recipe.vae.loss,
            lambda ids: to_float(pictures.pixels[ids]),
            pictures.train_ids,
            pictures.held_out_ids,
            recipe.seed,
            self.device,
        )
        shown = previews.shown_ids(pictures)

        def preview(step: int, network: nn.Module) -> None:
            assert isinstance(network, FirstStage)
            previews.reconstructions(network, pictures, shown, self.run.samples / f"vae-{step:08d}.png")

        self.reporter.stage("vae", f"{count_parameters(vae):,} parameters")
        trained = self._train(objective, recipe.vae.training, self.run.vae, preview)
        assert isinstance(trained, FirstStage)
        return trained.eval().requires_grad_(False)

    def denoiser(
        self,
        pictures: PictureSet,
        conditions: Conditions,
        latents: LatentSet,
        codec: Codec,
        start: Pipeline | None,
    ) -> UNet:
        """Train the denoiser over all the segments asked for."""
        recipe, conditions = self.recipe, conditions.to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed + 1)
            network = UNet(recipe.network).to(self.device)
        if conditions.unique is not None:
            network.condition.fit_text(conditions.training_text(pictures).to(self.device))
        if start is not None:
            network.load_state_dict(start.network.state_dict())
            if conditions.unique is not None:
                network.condition.extend_reach(conditions.training_text(pictures).to(self.device))
        process = recipe.process.build()
        objective = DenoiserObjective(
            network,
            process,
            recipe.loss,
            latents,
            conditions.batch,
            pictures.train_ids,
            pictures.held_out_ids,
            recipe.seed,
            self.device,
        )

        def preview(step: int, averaged: nn.Module) -> None:
            assert isinstance(averaged, UNet)
            model = assemble(recipe, codec, averaged, conditions.classes, conditions.facts, self.device)
            num_steps = min(recipe.sampling.num_steps, previews.MAX_STEPS)
            previews.samples(model, self.run.samples / f"denoiser-{step:08d}.png", limit=16, num_steps=num_steps)

        self.reporter.stage("denoiser", f"{count_parameters(network):,} parameters; {terminal_snr(process)}")
        planned, requests = len(self.journal.segments("denoiser")), self.journal.requests()
        for number in range(planned, len(requests)):
            if number > 0:  # a segment starts where the one before it ended, so that one must be done
                self._train(objective, recipe.training, self.run.denoiser, preview)
            self._plan_denoiser(requests, number)
        averaged = self._train(objective, recipe.training, self.run.denoiser, preview)
        assert isinstance(averaged, UNet)
        return averaged

    def _plan_denoiser(self, requests: list[Budget], number: int) -> None:
        """Write the segment of request `number` into the journal."""
        request, before = requests[number], requests[number - 1] if number else None
        start = (self.journal.segments("denoiser")[-1].end or 0) if before else 0
        if request.steps is not None:
            self.journal.add("segment", stage="denoiser", start=start, end=request.steps)
            return
        assert request.minutes is not None
        if before is not None and before.minutes is not None:
            seconds = 60 * (request.minutes - before.minutes)
        else:
            at_the_end = finish_seconds(self.recipe, self.device)
            left = 60 * request.minutes - self._overhead() - spent_on(self.run.vae) - at_the_end
            seconds = max(left, LEAST_SHARE * (1 - self.recipe.vae.share) * 60 * request.minutes)
            if seconds > left:
                self.reporter.warn(
                    f"the machine has become slower: this run ends {(seconds - left) / 60:.1f} minutes late, "
                    "rather than with a denoiser that has learned nothing"
                )
        self.journal.add("segment", stage="denoiser", start=start, seconds=round(max(seconds, 1.0), 1))

    def finish(self, conditions: Conditions, codec: Codec, network: UNet) -> None:
        """Write the bundle and the last sheet of samples, unless this very state was written before."""
        run, recipe = self.run, self.recipe
        steps = {stage: self.journal.segments(stage)[-1].end for stage in ("vae", "denoiser")}
        facts = {
            **conditions.facts,
            "name": run.folder.name,
            "vae_parameters": count_parameters(codec.vae),
            "denoiser_parameters": count_parameters(network),
            "vae_steps": steps["vae"],
            "denoiser_steps": steps["denoiser"],
            "measured": last_measures(run.metrics),
            "versions": {"calotype": version("calotype"), "torch": torch.__version__, "python": python_version()},
        }
        if isinstance(codec.vae, PretrainedVAE):
            facts |= {"vae_source": codec.vae.config.source, "vae_sha256": codec.vae.fingerprint}
        if run.facts() == facts and (run.model / "manifest.json").exists():
            self.reporter.say("this run is finished; a larger --minutes or --steps trains on")
            return
        self.reporter.stage("samples")
        model = assemble(recipe, codec, network, conditions.classes, facts, self.device)
        sheet = previews.samples(model, run.samples / "final.png", limit=FINAL_SAMPLES)
        save_bundle(model, run.model, sheet)
        run.write_facts(facts)

    def _train(self, objective: Objective, config: LoopConfig, folder: Path, preview: previews.Preview) -> nn.Module:
        entered = time.monotonic()
        metrics = Metrics(self.run.metrics, objective.stage)
        stage = StageRun(folder, self.journal, metrics, self.recipe.seed, self.reporter, preview)
        try:
            return train_stage(objective, config, stage)
        finally:
            self.trained_for += time.monotonic() - entered

    def _overhead(self) -> float:
        """Seconds of this process that no training stage has used."""
        return time.monotonic() - self.started - self.trained_for
