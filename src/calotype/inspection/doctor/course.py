"""How training went: skipped steps, divergence, spikes, the learning rate, overfitting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from statistics import median

from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown
from calotype.inspection.doctor.finding import Finding
from calotype.inspection.doctor.replay import samples_at
from calotype.training.engine import NOISE_BINS
from calotype.training.optimizers import OptimizerConfig

STAGES = ("vae", "denoiser")
LEAST_WINDOWS, AROUND = 8, 6
SPIKE, STANDS_OUT = 1.4, 6.0  # times the level before; robust standard deviations


def check_skips(evidence: Evidence) -> Iterator[Finding]:
    """Steps that gave no finite loss."""
    for stage in STAGES:
        skips = [r for r in evidence.records if r.get("stage") == stage and "skipped" in r]
        if skips:
            ids = sorted({int(i) for r in skips for i in r["skipped"]})
            pictures = evidence.pictures
            names = [pictures.names[int(pictures.train_ids[i])] for i in ids if i < len(pictures.train_ids)]
            of = f", by {', '.join(names[:4])}" if names else ""
            many = f"{len(skips)} steps" if len(skips) > 1 else "one step"
            what = f"{many} of the {stage} gave no finite loss and had to be skipped{of}"
            remedy = "look at these pictures and take them out, or train in a new --out with a lower learning rate"
            yield Finding("nan-skips", "warning", what, remedy, {"steps": [r["step"] for r in skips], "names": names})


def check_rollbacks(evidence: Evidence) -> Iterator[Finding]:
    """Training that diverged and went back."""
    for stage in STAGES:
        events = [e for e in evidence.journal.events if e["event"] == "rolled_back" and e["stage"] == stage]
        if events:
            at = [int(e["at"]) for e in events if "at" in e]
            optimizer = _optimizer(evidence, stage)
            where = "vae.training" if stage == "vae" else "training"
            often = f"{len(events)} times" if len(events) > 1 else "once"
            what = f"the {stage} diverged {often}, at step {', '.join(map(str, at))}, and went back"
            remedy = f"train in a new --out with --set {where}.optimizer.lr={optimizer.lr / 4:g}"
            yield Finding("learning-rate-high", "warning", what, remedy, {"rollbacks": at, "lr": optimizer.lr})


def check_spikes(evidence: Evidence) -> Iterator[Finding]:
    """A window of steps whose loss stands out from those around it."""
    for stage in STAGES:
        spikes = _spikes(_steady(evidence, stage))
        if not spikes:
            continue
        step, times = max(spikes, key=lambda spike: spike[1])
        noise = _worst_bin(evidence, step) if stage == "denoiser" else None
        names = samples_at(evidence, stage, step)
        where = f", most of all in noise bin {noise} of {NOISE_BINS}" if noise else ""
        whose = f"; of its pictures {', '.join(names[:3])} are the hardest" if names else ""
        more = f" (and {len(spikes) - 1} more)" if len(spikes) > 1 else ""
        what = (
            f"the loss of the {stage} leaps to {times:.1f} times what it was before step {step:,}{more}{where}{whose}"
        )
        setting = "vae.training" if stage == "vae" else "training"
        lower = f"--set {setting}.optimizer.clip_norm={_optimizer(evidence, stage).clip_norm / 2:g}"
        remedy = f"look at these pictures; if they are as they should be, train in a new --out with {lower}"
        figures = {"step": step, "times": times, "noise_bin": noise, "samples": names, "all": spikes}
        yield Finding("loss-spike", "warning", what, remedy, figures)


def _steady(evidence: Evidence, stage: str) -> list[tuple[int, float]]:
    """The course of the term that does not leap by design: without weights, without the adversary."""
    for key in ("unweighted", "reconstruction", "loss"):
        with suppress(Unknown):
            return evidence.course(stage, key)
    raise Unknown


def _spikes(course: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """(step, times the level around it) of windows that stand out, past the first tenth."""
    values = [math.log(max(value, 1e-12)) for _, value in course]
    if len(values) < LEAST_WINDOWS:
        raise Unknown
    level = [median(values[max(0, k - AROUND) : k] or values[:1]) for k in range(len(values))]
    apart = [value - before for value, before in zip(values, level, strict=True)]
    usual = 1.48 * median(abs(d - median(apart)) for d in apart)
    first = max(4, len(values) // 10)
    least = max(math.log(SPIKE), median(apart) + STANDS_OUT * usual)
    return [(course[k][0], math.exp(apart[k])) for k in range(first, len(values)) if apart[k] > least]


def _worst_bin(evidence: Evidence, step: int) -> int | None:
    """The noise bin, from 1, whose loss has grown most at `step`, beside the windows before it."""
    rows = [(r["step"], r["loss_by_noise"]) for r in evidence.records if isinstance(r.get("loss_by_noise"), list)]
    at = next((k for k, (when, _) in enumerate(rows) if when == step), None)
    if not at:
        return None
    grown = []
    for k, value in enumerate(rows[at][1]):
        before = [bins[k] for _, bins in rows[max(0, at - AROUND) : at] if bins[k]]
        grown.append(value / median(before) if value and before else 0.0)
    return 1 + grown.index(max(grown)) if max(grown) > 1 else None


def _optimizer(evidence: Evidence, stage: str) -> OptimizerConfig:
    return (evidence.recipe.vae.training if stage == "vae" else evidence.recipe.training).optimizer


CHECKS: Checks = {"skipped-steps": check_skips, "divergence": check_rollbacks, "spikes": check_spikes}
