"""Results on stdout, words on stderr; with `--json` one object on stdout."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import typer

HEADING, _WIDTH = 11, 100  # columns of a heading, and of a line


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


def layout(lines: Sequence[tuple[str, str]]) -> list[str]:
    """(heading, text) pairs as lines, text wrapped beside its heading.

    A line of text that begins with '>' is what to do about the one before; under the heading '|' it is a row of a
    table, and stays as it is.
    """
    return [line for heading, text in lines for line in _beside(heading, text)]


def _beside(heading: str, text: str) -> list[str]:
    if heading == "|":
        return [f"{' ' * HEADING}{text}".rstrip()]
    lines: list[str] = []
    for line in text.split("\n") or [""]:
        within = " " * (HEADING + 2 * line.startswith(">"))
        begin = f"{heading:{HEADING}}" if not lines else " " * HEADING
        lines += textwrap.wrap(
            one_line(line), _WIDTH, initial_indent=begin, subsequent_indent=within, break_on_hyphens=False
        ) or [""]
    return lines


def fail(line: str, *, as_json: bool) -> None:
    """The one line of a failure; with `--json` the same on stdout as {"error": ...}."""
    say(line)
    if as_json:
        typer.echo(json.dumps({"error": line.removeprefix("error: ")}, ensure_ascii=False))


def discard_stdout() -> None:
    """The reader of our stdout went away (`calotype models | head -1`): let the interpreter's last flush succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
