"""The autoencoder that a first stage starts from: which one it is, and whether it learns these pictures as well."""

from __future__ import annotations

from typing import Any

from calotype.core import distributed
from calotype.core.errors import CorruptFileError, UserError
from calotype.images.dataset import PictureSet
from calotype.latents import Codec, ConvVAE, LatentSet
from calotype.latents.encoding import weights_sha256
from calotype.pipeline.autoencoder import load_autoencoder
from calotype.pipeline.gate import what_training_mends
from calotype.pipeline.latents import latents_of
from calotype.pipeline.run import Run
from calotype.pipeline.session import Session
from calotype.recipes import Recipe, get_recipe
from calotype.recipes.recipe import VAESection
from calotype.training.journal import Journal


def with_origin(run: Run, asked: Recipe) -> VAESection:
    """The first stage's settings with the network of the autoencoder that it starts from, where it starts from one."""
    section = asked.vae
    if section.taken is None:
        return section
    known = run.recipe.vae if run.config.exists() and run.journal.exists() else None
    name = section.origin
    network = known.network if known and known.origin == name else load_autoencoder(name).config
    if section.network not in (network, get_recipe(asked.name, asked.size).vae.network):
        raise UserError(
            f"vae.network is not that of vae.from={name}", "leave vae.network out, or --set vae.from=scratch"
        )
    return section.model_copy(update={"network": network})


def take(section: VAESection, journal: Journal) -> ConvVAE:
    """The autoencoder that is named; refused (UserError) where it is not the one that this run has begun with."""
    name = section.origin
    vae = load_autoencoder(name)
    known = origin_facts(journal).get("vae_from_sha256")
    if known not in (None, weights_sha256(vae)):
        raise CorruptFileError(
            f"{name} has changed since this run began with it", "restore it, or choose another --out"
        )
    return vae


def origin_facts(journal: Journal) -> dict[str, str]:
    """What the run's journal says of the autoencoder it began with; empty where it began from nothing."""
    for record in journal.events:
        if record["event"] == "segment" and record.get("stage") == "vae" and "origin" in record:
            return {"vae_from": str(record["origin"]), "vae_from_sha256": str(record["sha256"])}
    return {}


def judge(session: Session, vae: ConvVAE, pictures: PictureSet) -> tuple[dict[str, Any], LatentSet | None]:
    """Whether an autoencoder that came trained learns these pictures too: what goes into the journal, and its latents.

    `why` is empty where it does not, and then come the latents, unless nobody looked. Every process of a group calls
    this; rank 0 looks, and its word is what counts.
    """
    run, recipe, reporter = session.run, session.recipe, session.reporter
    name, tune = recipe.vae.origin, recipe.vae.tune
    told = {"origin": name, "sha256": weights_sha256(vae)}
    if tune != "auto":
        how = "learns these pictures too" if tune == "always" else "is used as it is"
        reporter.say(f"the autoencoder {name} {how}, as vae.tune={tune} has it")
        return {**told, "why": "vae.tune=always" if tune == "always" else ""}, None
    flip = bool(recipe.loss.flip)
    latents = latents_of(run, pictures, vae, mirrored=flip, from_model=None, reporter=reporter)
    codec = Codec(vae, latents.statistics, recipe.size).to(session.device)
    why = ""
    if distributed.rank() == 0:
        why = what_training_mends(run, name, codec, latents, pictures, session.budget, reporter)
    why = distributed.share(why)
    vae.train().requires_grad_(True)  # a codec freezes what it holds
    return {**told, "why": why}, None if why else latents
