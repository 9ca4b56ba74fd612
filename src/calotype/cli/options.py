"""Options that several verbs share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from calotype.core.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, mps.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", help="Time to spend; more than a finished run had trains it on.")
]


def checked_minutes(minutes: float | None) -> float | None:
    """A time that can be spent, or none."""
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--minutes {minutes:g} is no time to train", "give a number above 0, such as --minutes 10")
    return minutes


def checked_folder(folder: Path | None, option: str = "--out") -> Path | None:
    """A path at which a folder is or can be made."""
    if folder is None:
        return None
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    if not standing.is_dir():
        raise UserError(f"{option} {standing} is a file", "name a folder; it is made when it is not there")
    return folder
