"""`calotype verify-resume`: does a killed run end as one that was left alone, on this machine and these settings?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter
from calotype.core.errors import UserError


def verify_resume(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Pictures as for train; none: drawn for the purpose.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe: calotype, ddpm-64 or text-128.")] = "calotype",
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of the pictures in pixels.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=2, help="Steps of each stage.")] = 40,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
    ] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Prove that training here resumes exactly: train, then again with a kill -9 in each stage, and compare all files.

    Exit status 0 if every file is the same to the bit, 1 if not.
    """
    home = Path(tempfile.mkdtemp(prefix="calotype-verify-"))
    kept = False
    try:
        with open_reporter() as reporter:
            from calotype.inspection import resume
            from calotype.training.signals import sigterm_as_ctrl_c

            with sigterm_as_ctrl_c():
                found = resume.verify_resume(
                    data,
                    home,
                    recipe=recipe,
                    size=size,
                    steps=steps,
                    overrides=overrides or [],
                    device=device,
                    reporter=reporter,
                )
        kept = bool(found["differing"])  # both runs, for whoever looks into it
    except UserError:
        if kept := (home / "killed").is_dir():
            output.say(f"the run left alone was well, the killed one failed: both are kept in {home}")
        raise
    finally:
        if not kept:
            shutil.rmtree(home, ignore_errors=True)
    if kept:
        found["kept"] = str(home)
    output.result(found, _lines(found), as_json=as_json)
    if not found["identical"]:
        raise typer.Exit(1)


def _lines(found: dict[str, Any]) -> list[str]:
    """What was done and what came of it."""
    kills = [
        f"{kill['stage']} at step {kill['at_step']} of {kill['of']}" for kill in found["killed"] if kill["at_step"]
    ]
    kinds = sorted({name.split("/")[0] for name in found["compared"]})
    lines = [
        f"reference  {found['reference_seconds']:g} s on {found['device']}, {found['threads']} threads",
        f"killed     {'; '.join(kills) or 'never'}; each time the same command went on",
        f"compared   {len(found['compared'])} files to the bit: {', '.join(kinds)}",
    ]
    if found["identical"]:
        return [*lines, "verdict    exact: the killed run is the undisturbed one"]
    lines += [f"differs    {name}" for name in found["differing"]]
    if first := found.get("first_difference"):
        lines.append(f"first      {first['stage']}, step {first['step']}: {', '.join(first['values'])}")
    verdict = "NOT exact" if found["differing"] else "not proven"
    lines += [f"verdict    {verdict}: {found['cause']}", f"remedy     {found['remedy']}"]
    return [*lines, f"kept       {found['kept']}"] if "kept" in found else lines
