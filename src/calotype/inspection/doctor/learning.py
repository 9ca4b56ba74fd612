"""What the weights show: how old their average is, whether they move fast enough or too fast, what they remember."""

from __future__ import annotations

import math
from collections.abc import Iterator

from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown
from calotype.inspection.doctor.finding import Finding
from calotype.inspection.doctor.probe import LEAST
from calotype.inspection.outlook import outlook_of
from calotype.recipes import get_recipe

LAGS = 1.05  # times the live weights' error
KNOWS_NOTHING = 0.8  # of the error of a denoiser that knows nothing
MANY_STEPS = 100
SHORT_REACH, LARGE_STEP = 0.5, 0.12  # of the weights' size; healthy runs of 100 to 1,000 steps have 0.03 to 0.07


def check_average(evidence: Evidence) -> Iterator[Finding]:
    """The averaged weights, that samples are drawn with, beside the live ones."""
    trial, training = evidence.trial, evidence.recipe.training
    step = evidence.steps("denoiser")
    age = step * training.batch_size / training.ema_halflife
    live, averaged = float(trial.live.mean()), float(trial.averaged.mean())
    apart = trial.averaged - trial.live
    sure = float(apart.mean()) > 3 * float(apart.std()) / math.sqrt(len(apart))
    if averaged > LAGS * live and sure:
        young = f"younger than its half-life ({age:.2f} of it)" if age < 1 else f"{age:.1f} half-lives old"
        what = (
            f"the average of the weights lags behind: {young}, its error is {averaged:.3f}, "
            f"that of the live ones {live:.3f}"
        )
        shorter = f"--set training.ema_halflife={step * training.batch_size / 10:.2g}"
        remedy = f"draw with the live ones (--weights live), train on, or train in a new --out with {shorter}"
        figures = {"half_lives": age, "averaged": averaged, "live": live}
        yield Finding("ema-young", "warning", what, remedy, figures)


def check_learned(evidence: Evidence) -> Iterator[Finding]:
    """Whether the denoiser knows more than the mean picture; if not, whether time or the learning rate is at fault."""
    trial, step = evidence.trial, evidence.steps("denoiser")
    error = float(trial.trained.asked.mean()) / trial.ignorance
    reach, size, rate = _reach(evidence)
    figures = {"error": error, "steps": step, "lr": rate, "reach": reach, "weights": size}
    told = f"its error is {error:.2f} after {step:,} steps, where 1 is that of one that never saw a picture"
    begun_anew = evidence.run.read_config().get("from") is None
    if begun_anew and step >= MANY_STEPS and reach < SHORT_REACH * size:
        what = (
            f"the learning rate of {rate:.1g} is too low: in all {step:,} steps a weight can have moved by "
            f"{reach:.2g}, and weights have a size of {size:.2g}; {told}"
        )
        remedy = f"train in a new --out with --set training.optimizer.lr={_usual(evidence):g}"
        yield Finding("learning-rate-low", "warning", what, remedy, figures)
    elif step >= MANY_STEPS and rate > LARGE_STEP * size:
        what = (
            f"the learning rate of {rate:.1g} is too high: every step may move a weight by {rate / size:.0%} of what "
            f"weights are, {size:.2g}; {told}"
        )
        remedy = f"train in a new --out with --set training.optimizer.lr={min(rate / 10, _usual(evidence)):g}"
        yield Finding("learning-rate-high", "warning", what, remedy, figures)
    elif error > KNOWS_NOTHING:
        what = f"the denoiser has learned little yet: {told}"
        remedy = f"train longer (a larger --minutes or --steps): {evidence.again}"
        yield Finding("hardly-trained", "warning", what, remedy, figures)


def check_outlook(evidence: Evidence) -> Iterator[Finding]:
    """Held-out error that rises while that of the training pictures falls."""
    if len(evidence.pictures.held_out_ids) < LEAST:
        raise Unknown
    found = outlook_of(evidence.run.folder)
    if found.verdict == "too early":
        raise Unknown
    if found.verdict == "overfits":
        remedy = "add pictures, or train in a new --out with --set network.dropout=0.1"
        what = found.sentence[:1].lower() + found.sentence[1:].rstrip(".")
        yield Finding("overfitting", "warning", what, remedy, dict(found.evidence))


def _reach(evidence: Evidence) -> tuple[float, float, float]:
    """How far AdamW can have moved a weight (the sum of its rates), the rms of the weights, and the highest rate."""
    rates = evidence.course("denoiser", "lr")
    reach, before = 0.0, 0
    for step, rate in rates:
        reach, before = reach + (step - before) * rate, step
    matrices = [w.double() for w in evidence.weights["network"].values() if w.ndim > 1]
    square = sum(float(w.square().sum()) for w in matrices) / max(sum(w.numel() for w in matrices), 1)
    return reach, math.sqrt(square), max(rate for _, rate in rates)


def _usual(evidence: Evidence) -> float:
    """The rate that the recipe has of itself."""
    recipe = evidence.recipe
    return get_recipe(recipe.name, recipe.size).training.optimizer.lr


CHECKS: Checks = {"average": check_average, "learned": check_learned, "outlook": check_outlook}
