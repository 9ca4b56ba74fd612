"""The whole path: pictures -> VAE -> latents -> denoiser -> bundle. Each stage is done, or continued, or skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import torch

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet
from calotype.images.source import Data
from calotype.latents import Codec, LatentSet, PretrainedVAE
from calotype.network.unet import UNet, count_parameters
from calotype.pipeline import previews
from calotype.pipeline.bundle import assemble, load, save_bundle
from calotype.pipeline.conditions import Conditions, prepare_conditions
from calotype.pipeline.denoiser_stage import train_denoiser
from calotype.pipeline.gate import pass_gate
from calotype.pipeline.intake import mirrored, take_in
from calotype.pipeline.latents import latents_of
from calotype.pipeline.origin import origin_facts
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.reserve import FINAL_SAMPLES
from calotype.pipeline.run import Run
from calotype.pipeline.session import Session
from calotype.pipeline.vae_stage import train_vae
from calotype.pipeline.weights import progress_of
from calotype.recipes import Recipe
from calotype.training.journal import Budget, Journal
from calotype.training.metrics import last_measures
from calotype.training.parallel import plain
from calotype.training.settings import check_decay
from calotype.training.tracking import Trackers


def run_stages(
    run: Run,
    data: Data,
    budget: Budget,
    *,
    from_model: str | Path | None,
    device: torch.device,
    reporter: Reporter,
    started: float,
    track: Sequence[str] = (),
    look: Callable[[Run], object] | None = None,
) -> None:
    """Every stage in turn. `started` is the clock when the command began; `look` is called after every preview."""
    recipe = run.recipe
    with closing(_open_trackers(run, recipe, track, reporter)) as trackers:
        timed = budget.minutes is not None
        check_decay("vae.training", recipe.vae.training, timed=timed)
        check_decay("training", recipe.training, timed=timed)
        pictures = distributed.leader_first(lambda: take_in(run, recipe, data, reporter))
        conditions = distributed.leader_first(lambda: prepare_conditions(run, recipe, pictures, reporter))
        loss = recipe.loss.model_copy(update={"flip": mirrored(recipe, pictures, reporter)})
        full = conditions.fill(recipe).model_copy(update={"loss": loss})
        start = _model_to_start_from(from_model, full)
        journal = Journal(run.journal, together=True)
        _request(run, full, journal, budget)
        session = Session(run, full, budget, device, reporter, started, journal, trackers, look)
        codec, latents = _first_stage(session, pictures, start, from_model)
        network = train_denoiser(session, pictures, conditions, latents, codec, start)
        _finish(session, conditions, codec, network)


def _open_trackers(run: Run, recipe: Recipe, track: Sequence[str], reporter: Reporter) -> Trackers:
    """Those that were asked for; of several processes the first one alone tells them anything."""
    names = track if distributed.rank() == 0 else ()
    config = recipe.model_dump(mode="json")
    return Trackers(run.folder, names, project="calotype", run=run.folder.name, config=config, reporter=reporter)


def _model_to_start_from(from_model: str | Path | None, recipe: Recipe) -> Pipeline | None:
    """The model of --from, if there is one; refused where its network is not the one this data asks for."""
    if from_model is None:
        return None
    start = load(from_model, "cpu")
    if start.recipe.network != recipe.network:
        raise UserError(
            f"{from_model} does not fit this data: its network takes other conditions or another size",
            "start from a model of the same --size, with captions if these pictures have them, or leave --from out",
        )
    return start


def _request(run: Run, recipe: Recipe, journal: Journal, budget: Budget) -> None:
    """Note what is asked for; a smaller budget than before brings the end nearer, where that can still be."""
    asked = journal.requests()
    nearer = bool(asked) and (asked[-1].minutes is None) == (budget.minutes is None)
    if not nearer or budget.amount >= asked[-1].amount:
        journal.request(budget)
        return
    step, spent = distributed.share(progress_of(run.denoiser) if distributed.rank() == 0 else (0, 0.0))
    journal.shorten(budget, step, spent, 1 - recipe.training.optimizer.plateau_share)


def _first_stage(
    session: Session, pictures: PictureSet, start: Pipeline | None, from_model: str | Path | None
) -> tuple[Codec, LatentSet]:
    """The VAE with the statistics of its latents, and those latents, let pass by the gate."""
    run, recipe, reporter = session.run, session.recipe, session.reporter
    vae, latents = train_vae(session, pictures, start)
    if latents is None:
        flip = bool(recipe.loss.flip)
        latents = latents_of(run, pictures, vae, mirrored=flip, from_model=from_model, reporter=reporter)
    codec = Codec(vae, latents.statistics, recipe.size).to(session.device)
    if distributed.rank() == 0:
        pass_gate(run, recipe, codec, latents, pictures, session.budget, reporter)
    distributed.barrier()
    return codec, latents


def _finish(session: Session, conditions: Conditions, codec: Codec, network: UNet) -> None:
    """Draw the last sheet together and write it and the bundle, unless this state was written before."""
    run, recipe = session.run, session.recipe
    steps = {stage: session.journal.segments(stage)[-1].end for stage in ("vae", "denoiser")}
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
    facts |= origin_facts(session.journal)
    if isinstance(codec.vae, PretrainedVAE):
        facts |= {"vae_source": codec.vae.config.source, "vae_sha256": codec.vae.fingerprint}
    if distributed.share(run.facts() == facts and (run.model / "manifest.json").exists()):
        session.reporter.say("this run is finished; a larger --minutes or --steps trains on")
        return
    session.reporter.stage("samples")
    model = assemble(recipe, codec, network, conditions.classes, facts, session.device)
    sheet = previews.samples(model, run.samples / "final.png", limit=FINAL_SAMPLES)
    network = plain(network, UNet(recipe.network))
    if distributed.rank() == 0:
        save_bundle(replace(model, network=network), run.model, sheet)
        run.write_facts(facts)
