"""`calotype doctor`: what is amiss with a run, a model or a set of pictures, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter


def doctor(
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL|DATA", help="What to look at; nothing of it changes.")],
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure a run, a model or a set of pictures and name what is amiss, each with its evidence and the remedy.

    Exit status 0 whatever is found.
    """
    with open_reporter() as reporter:
        from calotype.inspection.doctor import diagnose

        found = diagnose(target, device=device, reporter=reporter)
    lines = []
    for finding in found.findings:
        lines += [
            f"{finding.level:8} {finding.name}: {output.one_line(finding.what)}",
            f"{'':8} > {output.one_line(finding.remedy)}",
        ]
    output.result(found.plain(), [*lines, found.summary], as_json=as_json)
