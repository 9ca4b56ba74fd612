"""`calotype quickstart`: a model of OpenMoji in minutes, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import options
from calotype.cli.train import train_and_show


def quickstart(
    minutes: options.Minutes = 10.0,
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/quickstart"),
    as_json: options.Json = False,
) -> None:
    """Train a model that draws emoji from words.

    The pictures are the packaged OpenMoji (extras `demo` and `text`); a report is written at the end.
    """
    train_and_show(
        "openmoji",
        out=options.checked_folder(out),
        minutes=options.checked_minutes(minutes),
        as_json=as_json,
    )
