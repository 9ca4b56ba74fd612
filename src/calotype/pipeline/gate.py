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
from calotype.latents.health import examine, read_verdict
from calotype.pipeline.run import Run
from calotype.recipes import Recipe
from calotype.training.journal import Budget

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
    given = run.read_config().get("from") is not None
    distance = _distance() if budget.rough_seconds >= WORTH_FEATURES else None
    health = examine(codec, latents, pictures, given=given, distance=distance)
    stops = recipe.vae.gate == "refuse" and (health.broken or (health.verdict == "refuse" and not trial))
    health.write(run.latents)
    if stops:
        gravest = health.findings[0]
        raise UserError(f"{gravest.what} ({run.latents / 'health.png'} shows it)", f"{gravest.remedy}; {_ANYWAY}")
    reporter.say(health.summary)
    for finding in health.findings:
        reporter.warn(str(finding))


_ANYWAY = "or go on all the same with --set vae.gate=warn"


def _distance() -> Callable[[Tensor, Tensor], float] | None:
    """The distance between pictures and their reconstructions, where the extra `eval` is there to take it."""
    return kernel_distance if find_spec("efficientnet_lite_pytorch") else None
