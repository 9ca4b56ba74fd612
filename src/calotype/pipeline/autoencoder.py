"""The autoencoder of a model or a run, for another run's first stage to start from."""

from __future__ import annotations

from pathlib import Path

from calotype.core.errors import UserError
from calotype.core.progress import Silent
from calotype.core.tensors import choose_device, load_weights
from calotype.latents import ConvVAE, FirstStage, build_vae
from calotype.pipeline import shipped
from calotype.pipeline.bundle import load_bundle
from calotype.pipeline.run import Run
from calotype.training.checkpoint import newest_checkpoint, read_checkpoint
from calotype.training.journal import Journal


def load_autoencoder(name: str | Path) -> ConvVAE:
    """The VAE of `name`, float32 on the CPU: a shipped model, a bundle, or a run whose first stage is done.

    Raises UserError where there is none, or none that can be trained on.
    """
    place = shipped.found(name)
    if place.kind == "run" and not (place.folder / "model" / "model.json").is_file():
        vae = _of_run(Run(place.folder))
    else:
        bundle = place.folder / "model" if place.kind == "run" else place.folder
        vae = load_bundle(bundle, choose_device("cpu")).codec.vae
    if not isinstance(vae, ConvVAE):
        raise UserError(f"{name} has a VAE that diffusers trained", "name that one with --set vae.pretrained=...")
    return vae.requires_grad_(True)


def _of_run(run: Run) -> FirstStage:
    """Of a run that has no model yet, but a first stage that is done."""
    segments, newest = Journal(run.journal).segments("vae"), newest_checkpoint(run.vae, Silent())
    if not segments or newest is None or newest.name != f"step-{segments[-1].end or 0:08d}":
        raise UserError(f"the first stage of {run.folder} is not done", "give its train command again, or wait for it")
    vae = build_vae(run.recipe.vae.network)
    load_weights(vae, read_checkpoint(newest).tensors["ema"], run.vae)
    return vae
