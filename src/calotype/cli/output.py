"""Results on stdout, words on stderr; with `--json` one object on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def one_line(text: str) -> str:
    """The text without line breaks or control characters, so that a hostile file name cannot write on the terminal."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def say(message: str) -> None:
    """A line for the person, on stderr."""
    typer.echo(message, err=True)


def result(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """The outcome, on stdout: `lines`, or with `--json` the one object."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, default=str))
    else:
        for line in lines:
            typer.echo(line)


def fail(line: str, *, as_json: bool) -> None:
    """The one line of a failure; with `--json` the same on stdout as {"error": ...}."""
    say(line)
    if as_json:
        typer.echo(json.dumps({"error": line.removeprefix("error: ")}, ensure_ascii=False))


def discard_stdout() -> None:
    """The reader of our stdout went away (`calotype models | head -1`): let the interpreter's last flush succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
