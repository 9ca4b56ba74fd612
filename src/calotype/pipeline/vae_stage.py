"""Stage one of a run: the VAE, trained here, taken from elsewhere, or both."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.latents import ConvVAE, FirstStage, LatentSet, build_vae, load_pretrained_vae
from calotype.network.unet import count_parameters
from calotype.pipeline import previews
from calotype.pipeline.origin import judge, take
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.reserve import plan_ending
from calotype.pipeline.session import Session
from calotype.training.checkpoint import newest_checkpoint
from calotype.training.parallel import plain
from calotype.training.vae_objective import VAEObjective


def train_vae(session: Session, pictures: PictureSet, start: Pipeline | None) -> tuple[FirstStage, LatentSet | None]:
    """Train the VAE, or take the one that was named, and freeze it; and its latents, where they are there."""
    recipe, section = session.recipe, session.recipe.vae
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        vae = build_vae(recipe.vae.network).to(session.device)
    if start is not None:
        vae.load_state_dict(start.codec.vae.state_dict())
    elif (section.pretrained or section.taken) and newest_checkpoint(session.run.vae, session.reporter) is None:
        named = load_pretrained_vae(section.pretrained) if section.pretrained else take(section, session.journal)
        vae.load_state_dict(named.state_dict())
    latents = _plan(session, vae, pictures, start) if not session.journal.segments("vae") else None
    objective = VAEObjective(
        vae,
        recipe.vae.loss,
        lambda ids: to_float(pictures.pixels[ids]),
        pictures.train_ids,
        pictures.held_out_ids,
        recipe.seed,
        session.device,
    )
    shown = previews.shown_ids(pictures)

    def preview(step: int, averaged: nn.Module, live: nn.Module) -> None:
        assert isinstance(averaged, FirstStage)
        sheet = session.run.samples / f"vae-{step:08d}.png"
        previews.reconstructions(averaged, pictures, shown, sheet)
        session.trackers.image("vae", step, sheet)
        session.looked_at()

    session.reporter.stage("vae", f"{count_parameters(vae):,} parameters")
    trained = session.train(objective, recipe.vae.training, session.run.vae, preview, pictures)
    assert isinstance(trained, FirstStage)
    # Whole: each process encodes pictures of its own, and not as many as the others.
    whole = plain(trained, build_vae(recipe.vae.network)).to(session.device)
    return whole.eval().requires_grad_(False), latents


def _plan(session: Session, vae: FirstStage, pictures: PictureSet, start: Pipeline | None) -> LatentSet | None:
    """Write the first stage's segment into the journal: no steps for a VAE that came trained and is to stay so."""
    recipe, told, latents = session.recipe, dict[str, Any](), None
    came_trained = start is not None or recipe.vae.pretrained is not None
    if recipe.vae.taken is not None:
        assert isinstance(vae, ConvVAE)
        told, latents = judge(session, vae, pictures)
        came_trained = not told["why"]
    if came_trained:
        session.journal.add("segment", stage="vae", start=0, end=0, **told)
    elif session.budget.minutes is None:
        session.journal.add("segment", stage="vae", start=0, end=recipe.vae.steps, **told)
    else:
        at_the_end = plan_ending(recipe, session.device, session.budget).seconds
        usable = 60 * session.budget.minutes - session.overhead() - at_the_end
        seconds = recipe.vae.share * max(usable, 1.0)
        session.journal.add("segment", stage="vae", start=0, seconds=round(seconds, 1), **told)
    return latents
