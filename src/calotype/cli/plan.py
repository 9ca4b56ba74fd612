"""`calotype plan`: what a run will take in time, memory and disk, measured before anything long starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter
from calotype.core.errors import UserError

_HEADING = 12
Row = tuple[str, str, str, str]  # part, speed, memory at most, in the whole run


def plan(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What you would give to 'calotype train'.")],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe: calotype, ddpm-64 or text-128.")] = "calotype",
    out: Annotated[Path | None, typer.Option("--out", help="Where the run would be: its disk is looked at.")] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of the pictures in pixels.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Time that the run would have.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoiser steps, instead of --minutes.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of data order, noise and weights.")] = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say what training would take: every part is measured on a few of your pictures, which takes about a minute.

    Nothing is left behind. Exit status 0 also where the run does not fit: the lines say what mends it.
    """
    if minutes is not None and steps is not None:
        raise UserError("--minutes and --steps both given", "give one: a time, or a number of denoiser steps")
    with open_reporter() as reporter:
        from calotype.inspection.preflight.plan import plan as measure

        found = measure(
            data,
            recipe=recipe,
            out=options.checked_folder(out),
            size=size,
            minutes=options.checked_minutes(minutes),
            steps=steps,
            overrides=overrides or [],
            seed=seed,
            device=device,
            reporter=reporter,
        )
    if as_json or not sys.stdout.isatty():
        output.result(found, _plain(found), as_json=as_json)
    else:
        _show(found)


def _plain(found: Mapping[str, Any]) -> list[str]:
    """The plan as aligned lines."""
    rows = _rows(found)
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*_above(found), "", *table, "", *_below(found)] if rows else [*_above(found), "", *_below(found)]


def _show(found: Mapping[str, Any]) -> None:
    """The plan on a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, rows = Console(highlight=False, soft_wrap=True), _rows(found)
    for line in _above(found):
        console.print(Text(line))
    if rows:
        table = Table(*rows[0], box=box.SIMPLE, pad_edge=False)
        for row in rows[1:]:
            table.add_row(*map(Text, row))
        console.print(table)
    for line in _below(found):
        console.print(Text(line, style="yellow" if line.startswith(("to mend", "verdict     does")) else ""))


def _above(found: Mapping[str, Any]) -> list[str]:
    where = found["device"] + (f", {found['threads']} threads" if found["device"] == "cpu" else "")
    lines = [
        _line("data", f"{found['data']}, {found['files']:,} files, at {found['size']} px"),
        _line("run", f"{found['recipe']}, {found['budget']}, on {where}"),
    ]
    if origin := found.get("vae_from"):
        why = f"learns these pictures too: {origin['learns']}"
        lines.append(_line("vae", f"{origin['name']}, which {why if origin['learns'] else 'is not trained'}"))
    return lines


def _rows(found: Mapping[str, Any]) -> list[Row]:
    """The parts of the run; none if it was not measured to the end."""
    if "stages" not in found:
        return []
    rates, seconds, memory = found["rates"], found["seconds"], found["memory"]["parts"]
    rows: list[Row] = [("part", "speed", "memory", "in the whole run")]

    def add(name: str, speed: str, part: str, total: str) -> None:
        rows.append((name, speed, _bytes(memory[part]) if part else "", total))

    add("pictures", f"{rates['files_decoded']:,.0f} files/s", "pictures", duration(seconds["pictures"]))
    if rates["captions_encoded"] is not None:
        add("captions", f"{rates['captions_encoded']:,.0f} /s", "captions", duration(seconds["captions"]))
    for name, stage in found["stages"].items():
        if name == "denoiser":
            add("latents", f"{rates['pictures_encoded']:,.0f} pictures/s", "latents", duration(seconds["latents"]))
        # Its discriminator joins later than here; until then steps are faster.
        timed, sooner = found["budget"].startswith("--minutes"), stage["discriminator"]
        few, long = "at least " * (sooner and timed), "at most " * (sooner and not timed)
        done = f"{few}{stage['steps']:,} steps, {stage['epochs']:,.3g} epochs: {long}{duration(stage['seconds'])}"
        speed = f"{stage['steps_per_second']:,.3g} steps/s, {stage['pictures_per_second']:,.0f} pictures/s"
        add(name, speed, name, done)
        add("  validation", duration(stage["validation_seconds"]), "", f"{stage['validations']:,} times")
        add("  preview", duration(stage["preview_seconds"]), "", f"{stage['previews']:,} times")
        saved = f"{duration(stage['checkpoint_seconds'])}, {_bytes(stage['checkpoint_bytes'])}"
        add("  checkpoint", saved, "", f"{stage['saves']:,} times")
    add("end", "samples, model, report", "samples", duration(seconds["finish"]))
    return rows


def _below(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if "stages" in found:
        memory, disk = found["memory"], found["disk"]
        free = "what is free is not known" if memory["free"] is None else f"{_bytes(memory['free'])} are free"
        parts = ", ".join(f"{name} {_bytes(size)}" for name, size in disk["parts"].items() if size)
        lines = [
            _line("time", f"{duration(found['seconds']['total'])} in all"),
            _line("memory", f"{_bytes(memory['needed'])} at most, {free}{_micro(memory['micro_batch'])}"),
            _line("disk", f"{_bytes(disk['needed'])}, {_bytes(disk['free'])} are free ({parts})"),
        ]
    lines.append(_line("verdict", found["verdict"]))
    for advice in found["mend"]:
        lines += [_line("to mend", advice["what"]), _line("", f"> {advice['action']}")]
    lines.append(_line("measured in", duration(found["plan_seconds"])))
    return [*lines, _line("go on", found["train"])]


def _micro(micro: Mapping[str, Mapping[str, int]]) -> str:
    """How many pictures fit at once, where that is fewer than are wanted."""
    less = [f"{stage['fits']} of {stage['asked']} in the {name}" for name, stage in micro.items()]
    few = any(stage["fits"] < stage["asked"] for stage in micro.values())
    return f"; pictures at once: {', '.join(less)}" if few else "; whole batches fit"


def _line(heading: str, text: str) -> str:
    return f"{heading:{_HEADING}}{output.one_line(text)}"


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 20 s', '5 h 12 min', '3.2 days'."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"


def _bytes(size: float) -> str:
    """'512 kB', '23 MB', '1.5 GB'."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= 0.9995 * scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.0f} kB"
