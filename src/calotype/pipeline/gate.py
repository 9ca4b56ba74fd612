"""Between the stages: are these latents worth the time that a denoiser would spend on them?"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.evaluation import kernel_distance
from calotype.images.dataset import PictureSet
from calotype.latents import Codec, LatentSet
from calotype.latents.health import Health, examine, read_verdict
from calotype.latents.health_checks import MENDED_BY_TRAINING
from calotype.pipeline.run import Run
from calotype.recipes import Recipe
from calotype.training.journal import Budget, Journal

A_TRIAL = 300.0  # seconds of training that may be spent on bad latents to see what comes of them
WORTH_FEATURES = 1200.0  # seconds of training beside which half a minute for a feature network is little


def pass_gate(
    run: Run, recipe: Recipe, codec: Codec, latents: LatentSet, pictures: PictureSet, budget: Budget, reporter: Reporter
) -> None:
    """Examine the latents once, say what was found, and stop the run (UserError) if a denoiser would be wasted on them.

    Parts that do not belong together stop it always; latents that are whole but poor do not stop a short trial.
    """
    trial = budget.rough_seconds <= A_TRIAL
    if recipe.vae.gate == "skip" or read_verdict(run.latents, latents.statistics) in ("pass", "warn"):
        return  # what was refused is looked at again: the trial that it may have been let through as may be over
    reporter.stage("health", "of the latents")
    health = _examined(codec, latents, pictures, budget, given=_came_trained(run))
    stops = recipe.vae.gate == "refuse" and (health.broken or (health.verdict == "refuse" and not trial))
    health.write(run.latents)
    if stops:
        gravest = health.findings[0]
        raise UserError(f"{gravest.what} ({run.latents / 'health.png'} shows it)", f"{gravest.remedy}; {_ANYWAY}")
    reporter.say(health.summary)
    for finding in health.findings:
        reporter.warn(str(finding))


def what_training_mends(
    run: Run, name: str, codec: Codec, latents: LatentSet, pictures: PictureSet, budget: Budget, reporter: Reporter
) -> str:
    """What is amiss with the latents that the autoencoder `name` gives as it came, and would not be if it learned these
    pictures; empty where there is no such thing. Latents that pass are not looked at again.
    """
    reporter.stage("health", f"of the latents that {name} gives")
    health = _examined(codec, latents, pictures, budget, given=True)
    if why := amiss(health):
        reporter.say(f"the autoencoder {name} does not serve these pictures as it is, and learns them too: {why}")
        return why
    if health.verdict == "pass":
        health.write(run.latents)
    kept = health.measures["held_out"] or health.measures["trained"]
    kind = "held-out" if health.measures["held_out"] else "training"
    told = "" if kept["psnr"] is None else f": {kind} PSNR {kept['psnr']:.1f} dB"
    reporter.say(f"the autoencoder {name} serves these pictures{told}; it is not trained")
    return ""


def amiss(health: Health) -> str:
    """The gravest finding that training mends; empty where there is none."""
    return next((finding.what for finding in health.findings if finding.check in MENDED_BY_TRAINING), "")


def _examined(codec: Codec, latents: LatentSet, pictures: PictureSet, budget: Budget, *, given: bool) -> Health:
    distance = _distance() if budget.rough_seconds >= WORTH_FEATURES else None
    return examine(codec, latents, pictures, given=given, distance=distance)


def _came_trained(run: Run) -> bool:
    """Whether the first stage was not trained here, so that to train it longer is no remedy."""
    segments = Journal(run.journal).segments("vae")
    return bool(segments) and segments[-1].end == 0


_ANYWAY = "or go on all the same with --set vae.gate=warn"


def _distance() -> Callable[[Tensor, Tensor], float] | None:
    """The distance between pictures and their reconstructions, where the extra `eval` is there to take it."""
    return kernel_distance if find_spec("efficientnet_lite_pytorch") else None
