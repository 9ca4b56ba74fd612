"""`calotype train`: from pictures to a model and its report; the same command goes on with a run that stopped."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter
from calotype.core.errors import UserError
from calotype.core.files import read_lines

if TYPE_CHECKING:
    from calotype.pipeline import Run


def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Pictures: a folder, archive, shards, or openmoji.")],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe: calotype, ddpm-64 or text-128.")] = "calotype",
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder (default: runs/ and the data's name).")
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of the pictures in pixels.")] = None,
    minutes: options.Minutes = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoiser steps, instead of --minutes.")] = None,
    from_model: Annotated[str | None, typer.Option("--from", metavar="MODEL", help="Fine-tune this model.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of data order, noise and weights.")] = 0,
    device: options.Device = "auto",
    track: Annotated[
        list[str] | None,
        typer.Option("--track", metavar="NAME", help="Tell tensorboard, wandb or trackio too; may be repeated."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train a model on your pictures, and write its report.

    The same command continues a run that stopped; a larger --minutes or --steps trains a finished one on.
    """
    if minutes is not None and steps is not None:
        raise UserError("--minutes and --steps both given", "give one: a time, or a number of denoiser steps")
    train_and_show(
        data,
        recipe=recipe,
        out=options.checked_folder(out),
        size=size,
        minutes=options.checked_minutes(minutes),
        steps=steps,
        from_model=from_model,
        overrides=overrides or [],
        seed=seed,
        device=device,
        track=track or [],
        as_json=as_json,
    )


def train_and_show(data: str, *, as_json: bool, **settings: Any) -> None:
    """Train with progress on stderr, then say where the results are and how to go on."""
    with open_reporter() as reporter:
        from calotype.inspection.training import train as run_training

        run = run_training(data, **settings, reporter=reporter)
        from calotype.core import distributed

        if not distributed.leads():
            return
    output.say(f"look at {run.report}")
    output.say(f"go on:  calotype sample {shlex.quote(str(run.folder))} {_example(run)}")
    values = {
        "run": str(run.folder),
        "report": str(run.report),
        "model": str(run.model),
        "samples": sorted(str(path) for path in run.samples.glob("*.png")),
        "metrics": _latest_metrics(run.metrics),
    }
    output.result(values, [str(run.report)], as_json=as_json)


def _example(run: Run) -> str:
    """What to ask this model for, as words of a command."""
    facts = run.facts()
    if facts.get("examples"):
        return shlex.quote(str(facts["examples"][0]))
    return f"--label {shlex.quote(str(facts['classes'][0]))}" if facts.get("classes") else "-n 16"


def _latest_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """The last value of every metric, a stage at a time."""
    latest: dict[str, dict[str, Any]] = {}
    for record in read_lines(path):
        values = latest.setdefault(str(record.get("stage", "run")), {})
        values.update({key: value for key, value in record.items() if key not in ("stage", "time")})
    return latest
