"""Training with its report: what `calotype train` and `calotype.train` both call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calotype.core import distributed
from calotype.core.progress import Reporter, Silent
from calotype.images.source import Data
from calotype.inspection.report import write_progress_report, write_report
from calotype.inspection.scores import evaluate, read_scores
from calotype.pipeline import Run
from calotype.pipeline import train as train_stages
from calotype.pipeline.reserve import WORTH_SCORING, plan_ending
from calotype.training.journal import Journal


def train(
    data: Data,
    *,
    recipe: str = "calotype",
    out: str | Path | None = None,
    size: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    from_model: str | Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    track: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Train on `data` as `pipeline.train` does, then score what came of it and write `report.html`; returns the run.

    `run.load()` is the model. A run that was finished before, with its report, is returned as it is. Scores need the
    extra `eval`, and a run of five minutes or more.
    """
    reporter = reporter or Silent()
    run = train_stages(
        data,
        recipe=recipe,
        out=out,
        size=size,
        minutes=minutes,
        steps=steps,
        from_model=from_model,
        overrides=overrides,
        seed=seed,
        device=device,
        track=track,
        reporter=reporter,
        look=lambda run: write_progress_report(run.folder),
    )
    if not distributed.leads():
        return run
    if not run.report.exists() or run.report.stat().st_mtime < run.model.stat().st_mtime:
        _look_back(run, device, reporter)
    return run


def _look_back(run: Run, device: str, reporter: Reporter) -> None:
    """Score what came of it, as far as its budget bears that, and write the report."""
    budget = Journal(run.journal).requests()[-1]
    model = run.load(device)
    prompts = plan_ending(model.recipe, model.device, budget).prompts
    if prompts and read_scores(run.folder) is None:
        evaluate(run.folder, prompts=prompts, thorough=False, device=device, reporter=reporter)
    elif not prompts and budget.rough_seconds >= WORTH_SCORING:
        reporter.say(
            f"not scored: it would take too much of the time, or lacks an extra; calotype evaluate {run.folder}"
        )
    write_report(run.folder, reporter)
