"""Training with its report: what `calotype train` and `calotype.train` both call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calotype.core import distributed
from calotype.core.progress import Reporter, Silent
from calotype.images.source import Data
from calotype.inspection.report import write_report
from calotype.pipeline import Run
from calotype.pipeline import train as train_stages


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
    """Train on `data` as `pipeline.train` does, then write `report.html`; returns the finished run.

    `run.load()` is the model. A run that was finished before, with its report, is returned as it is.
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
    )
    if not distributed.leads():
        return run
    if not run.report.exists() or run.report.stat().st_mtime < run.model.stat().st_mtime:
        write_report(run.folder, reporter)
    return run
