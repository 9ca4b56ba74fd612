"""The whole path: pictures -> VAE -> latents -> denoiser -> bundle. Each stage is done, or continued, or skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

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
    ConvVAE,
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
from calotype.pipeline.origin import judge, origin_facts, take
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.reserve import FINAL_SAMPLES, plan_ending
from calotype.pipeline.run import Run
from calotype.pipeline.scoring import Score
from calotype.pipeline.weights import progress_of, spent_on
from calotype.process import terminal_snr
from calotype.recipes import Recipe
from calotype.training.checkpoint import newest_checkpoint
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.journal import Budget, Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics, last_measures
from calotype.training.objective import Objective
from calotype.training.parallel import plain
from calotype.training.settings import LoopConfig, check_decay
from calotype.training.tracking import Trackers
from calotype.training.vae_objective import VAEObjective

LEAST_SHARE = 0.5  # of the denoiser's share of a timed run that it gets even when the first stage came late


@dataclass
class Stages:
    """One run on its way. Methods are called in the order in which they stand. `look` is called after every preview."""

    run: Run
    recipe: Recipe
    budget: Budget
    device: torch.device
    reporter: Reporter
    started: float
    track: Sequence[str] = ()
    look: Callable[[Run], object] | None = None
    trained_for: float = field(default=0.0, init=False)

    def run_all(self, data: Data, from_model: str | Path | None) -> None:
        """Every stage in turn."""
        self.trackers = self._open_trackers()
        with closing(self.trackers):
            self._run_all(data, from_model)

    def _run_all(self, data: Data, from_model: str | Path | None) -> None:
        timed = self.budget.minutes is not None
        check_decay("vae.training", self.recipe.vae.training, timed=timed)
        check_decay("training", self.recipe.training, timed=timed)
        pictures = distributed.leader_first(lambda: take_in(self.run, self.recipe, data, self.reporter))
        conditions = distributed.leader_first(
            lambda: prepare_conditions(self.run, self.recipe, pictures, self.reporter)
        )
        loss = self.recipe.loss.model_copy(update={"flip": mirrored(self.recipe, pictures, self.reporter)})
        self.recipe = conditions.fill(self.recipe).model_copy(update={"loss": loss})
        start = load(from_model, "cpu") if from_model is not None else None
        if start is not None and start.recipe.network != self.recipe.network:
            raise UserError(
                f"{from_model} does not fit this data: its network takes other conditions or another size",
                "start from a model of the same --size, with captions if these pictures have them, or leave --from out",
            )
        self.journal = Journal(self.run.journal, together=True)
        self._request()
        vae, latents = self.vae(pictures, start)
        flip = bool(self.recipe.loss.flip)
        if latents is None:
            latents = latents_of(self.run, pictures, vae, mirrored=flip, from_model=from_model, reporter=self.reporter)
        codec = Codec(vae, latents.statistics, self.recipe.size).to(self.device)
        if distributed.rank() == 0:
            pass_gate(self.run, self.recipe, codec, latents, pictures, self.budget, self.reporter)
        distributed.barrier()
        network = self.denoiser(pictures, conditions, latents, codec, start)
        self.finish(conditions, codec, network)

    def _request(self) -> None:
        """Note what is asked for; a smaller budget than before brings the end nearer, where that can still be."""
        asked, budget = self.journal.requests(), self.budget
        nearer = bool(asked) and (asked[-1].minutes is None) == (budget.minutes is None)
        if not nearer or budget.amount >= asked[-1].amount:
            self.journal.request(budget)
            return
        step, spent = distributed.share(progress_of(self.run.denoiser) if distributed.rank() == 0 else (0, 0.0))
        training = self.recipe.training.optimizer
        self.journal.shorten(budget, step, spent, 1 - training.plateau_share)

    def _open_trackers(self) -> Trackers:
        """Those that were asked for; of several processes the first one alone tells them anything."""
        names = self.track if distributed.rank() == 0 else ()
        config = self.recipe.model_dump(mode="json")
        folder = self.run.folder
        return Trackers(folder, names, project="calotype", run=folder.name, config=config, reporter=self.reporter)

    def vae(self, pictures: PictureSet, start: Pipeline | None) -> tuple[FirstStage, LatentSet | None]:
        """Train the VAE, or take the one that was named, and freeze it; and its latents, where they are there."""
        recipe, section = self.recipe, self.recipe.vae
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            vae = build_vae(recipe.vae.network).to(self.device)
        if start is not None:
            vae.load_state_dict(start.codec.vae.state_dict())
        elif (section.pretrained or section.taken) and newest_checkpoint(self.run.vae, self.reporter) is None:
            named = load_pretrained_vae(section.pretrained) if section.pretrained else take(section, self.journal)
            vae.load_state_dict(named.state_dict())
        latents = self._plan_vae(vae, pictures, start) if not self.journal.segments("vae") else None
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

        def preview(step: int, averaged: nn.Module, live: nn.Module) -> None:
            assert isinstance(averaged, FirstStage)
            sheet = self.run.samples / f"vae-{step:08d}.png"
            previews.reconstructions(averaged, pictures, shown, sheet)
            self.trackers.image("vae", step, sheet)
            self._looked_at()

        self.reporter.stage("vae", f"{count_parameters(vae):,} parameters")
        trained = self._train(objective, recipe.vae.training, self.run.vae, preview, pictures)
        assert isinstance(trained, FirstStage)
        # Whole: each process encodes pictures of its own, and not as many as the others.
        whole = plain(trained, build_vae(recipe.vae.network)).to(self.device)
        return whole.eval().requires_grad_(False), latents

    def _plan_vae(self, vae: FirstStage, pictures: PictureSet, start: Pipeline | None) -> LatentSet | None:
        """Write the first stage's segment into the journal: no steps for a VAE that came trained and is to stay so."""
        recipe, told, latents = self.recipe, dict[str, Any](), None
        came_trained = start is not None or recipe.vae.pretrained is not None
        if recipe.vae.taken is not None:
            assert isinstance(vae, ConvVAE)
            flip = bool(recipe.loss.flip)
            told, latents = judge(
                self.run, recipe, vae, pictures, self.budget, mirrored=flip, device=self.device, reporter=self.reporter
            )
            came_trained = not told["why"]
        if came_trained:
            self.journal.add("segment", stage="vae", start=0, end=0, **told)
        elif self.budget.minutes is None:
            self.journal.add("segment", stage="vae", start=0, end=recipe.vae.steps, **told)
        else:
            at_the_end = plan_ending(recipe, self.device, self.budget).seconds
            usable = 60 * self.budget.minutes - self._overhead() - at_the_end
            seconds = recipe.vae.share * max(usable, 1.0)
            self.journal.add("segment", stage="vae", start=0, seconds=round(seconds, 1), **told)
        return latents

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

        def preview(step: int, averaged: nn.Module, live: nn.Module) -> None:
            num_steps = min(recipe.sampling.num_steps, previews.MAX_STEPS)
            for weights, ending, limit in ((averaged, "", 16), (live, "-live", 8)):
                assert isinstance(weights, UNet)
                with previews.frozen(weights):
                    model = assemble(recipe, codec, weights, conditions.classes, conditions.facts, self.device)
                    sheet = self.run.samples / f"denoiser-{step:08d}{ending}.png"
                    previews.samples(model, sheet, limit=limit, num_steps=num_steps)
                self.trackers.image("denoiser", step, sheet)
            self._looked_at()

        score = Score(self.run, recipe, codec, conditions, pictures, self.device, self.reporter)
        self.reporter.stage("denoiser", f"{count_parameters(network):,} parameters; {terminal_snr(process)}")
        planned, requests = len(self.journal.segments("denoiser")), self.journal.requests()
        for number in range(planned, len(requests)):
            if number > 0:  # a segment starts where the one before it ended, so that one must be done
                self._train(objective, recipe.training, self.run.denoiser, preview, pictures, score)
            self._plan_denoiser(requests, number)
        averaged = self._train(objective, recipe.training, self.run.denoiser, preview, pictures, score)
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
            at_the_end = plan_ending(self.recipe, self.device, self.budget).seconds
            spent = spent_on(self.run.vae) if distributed.rank() == 0 else 0.0  # rank 0's word is what counts
            left = 60 * request.minutes - self._overhead() - spent - at_the_end
            seconds = max(left, LEAST_SHARE * (1 - self.recipe.vae.share) * 60 * request.minutes)
            if seconds > left:
                self.reporter.warn(
                    f"the machine has become slower: this run ends {(seconds - left) / 60:.1f} minutes late, "
                    "rather than with a denoiser that has learned nothing"
                )
        self.journal.add("segment", stage="denoiser", start=start, seconds=round(max(seconds, 1.0), 1))

    def finish(self, conditions: Conditions, codec: Codec, network: UNet) -> None:
        """Draw the last sheet together and write it and the bundle, unless this state was written before."""
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
        facts |= origin_facts(self.journal)
        if isinstance(codec.vae, PretrainedVAE):
            facts |= {"vae_source": codec.vae.config.source, "vae_sha256": codec.vae.fingerprint}
        if distributed.share(run.facts() == facts and (run.model / "manifest.json").exists()):
            self.reporter.say("this run is finished; a larger --minutes or --steps trains on")
            return
        self.reporter.stage("samples")
        model = assemble(recipe, codec, network, conditions.classes, facts, self.device)
        sheet = previews.samples(model, run.samples / "final.png", limit=FINAL_SAMPLES)
        network = plain(network, UNet(recipe.network))
        if distributed.rank() == 0:
            save_bundle(replace(model, network=network), run.model, sheet)
            run.write_facts(facts)

    def _train(
        self,
        objective: Objective,
        config: LoopConfig,
        folder: Path,
        preview: previews.Preview,
        pictures: PictureSet,
        score: Score | None = None,
    ) -> nn.Module:
        entered, writes = time.monotonic(), distributed.rank() == 0
        metrics = Metrics(self.run.metrics, objective.stage, writes=writes, tracked=self.trackers.record)

        def named(sample: int) -> str:
            return pictures.names[int(pictures.train_ids[sample])]

        stage = StageRun(folder, self.journal, metrics, self.recipe.seed, self.reporter, preview, named, score)
        try:
            return train_stage(objective, config, stage)
        finally:
            self.trained_for += time.monotonic() - entered

    def _looked_at(self) -> None:
        """There is something new to see in the run's folder."""
        if self.look is None or distributed.rank() != 0:
            return
        try:
            self.look(self.run)
        except Exception as error:  # whatever is wrong with a page about the run must not cost the run
            self.look = None
            self.reporter.warn(f"its report is not written while it trains: {error}")

    def _overhead(self) -> float:
        """Seconds of this process that no training stage has used."""
        return time.monotonic() - self.started - self.trained_for
