"""Stage two of a run: the denoiser, over all the segments that were asked for."""

from __future__ import annotations

import torch
from torch import nn

from calotype.core import distributed
from calotype.images.dataset import PictureSet
from calotype.latents import Codec, LatentSet
from calotype.network.unet import UNet, count_parameters
from calotype.pipeline import previews
from calotype.pipeline.bundle import assemble
from calotype.pipeline.conditions import Conditions
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.reserve import plan_ending
from calotype.pipeline.scoring import Score
from calotype.pipeline.session import Session
from calotype.pipeline.weights import spent_on
from calotype.process import terminal_snr
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.journal import Budget

LEAST_SHARE = 0.5  # of the denoiser's share of a timed run that it gets even when the first stage came late


def train_denoiser(
    session: Session,
    pictures: PictureSet,
    conditions: Conditions,
    latents: LatentSet,
    codec: Codec,
    start: Pipeline | None,
) -> UNet:
    """Train the denoiser over all the segments asked for."""
    recipe, conditions = session.recipe, conditions.to(session.device)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed + 1)
        network = UNet(recipe.network).to(session.device)
    if conditions.unique is not None:
        network.condition.fit_text(conditions.training_text(pictures).to(session.device))
    if start is not None:
        network.load_state_dict(start.network.state_dict())
        if conditions.unique is not None:
            network.condition.extend_reach(conditions.training_text(pictures).to(session.device))
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
        session.device,
    )

    def preview(step: int, averaged: nn.Module, live: nn.Module) -> None:
        num_steps = min(recipe.sampling.num_steps, previews.MAX_STEPS)
        for weights, ending, limit in ((averaged, "", 16), (live, "-live", 8)):
            assert isinstance(weights, UNet)
            with previews.frozen(weights):
                model = assemble(recipe, codec, weights, conditions.classes, conditions.facts, session.device)
                sheet = session.run.samples / f"denoiser-{step:08d}{ending}.png"
                previews.samples(model, sheet, limit=limit, num_steps=num_steps)
            session.trackers.image("denoiser", step, sheet)
        session.looked_at()

    score = Score(session.run, recipe, codec, conditions, pictures, session.device, session.reporter)
    session.reporter.stage("denoiser", f"{count_parameters(network):,} parameters; {terminal_snr(process)}")
    planned, requests = len(session.journal.segments("denoiser")), session.journal.requests()
    for number in range(planned, len(requests)):
        if number > 0:  # a segment starts where the one before it ended, so that one must be done
            session.train(objective, recipe.training, session.run.denoiser, preview, pictures, score)
        _plan(session, requests, number)
    averaged = session.train(objective, recipe.training, session.run.denoiser, preview, pictures, score)
    assert isinstance(averaged, UNet)
    return averaged


def _plan(session: Session, requests: list[Budget], number: int) -> None:
    """Write the segment of request `number` into the journal."""
    request, before = requests[number], requests[number - 1] if number else None
    start = (session.journal.segments("denoiser")[-1].end or 0) if before else 0
    if request.steps is not None:
        session.journal.add("segment", stage="denoiser", start=start, end=request.steps)
        return
    assert request.minutes is not None
    if before is not None and before.minutes is not None:
        seconds = 60 * (request.minutes - before.minutes)
    else:
        at_the_end = plan_ending(session.recipe, session.device, session.budget).seconds
        spent = spent_on(session.run.vae) if distributed.rank() == 0 else 0.0  # rank 0's word is what counts
        left = 60 * request.minutes - session.overhead() - spent - at_the_end
        seconds = max(left, LEAST_SHARE * (1 - session.recipe.vae.share) * 60 * request.minutes)
        if seconds > left:
            session.reporter.warn(
                f"the machine has become slower: this run ends {(seconds - left) / 60:.1f} minutes late, "
                "rather than with a denoiser that has learned nothing"
            )
    session.journal.add("segment", stage="denoiser", start=start, seconds=round(max(seconds, 1.0), 1))
