"""`calotype data`: a set of pictures looked at before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter


def data(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What you would give to 'calotype train'.")],
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of the pictures in pixels.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the contact sheet and lists (default: runs/data-NAME).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.KEY=VALUE", help="A setting of the data; may be repeated."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look at a set of pictures: counts, captions, copies, bad files, a contact sheet, and what to mend."""
    out = options.checked_folder(out)
    with open_reporter() as reporter:
        from calotype.inspection.data import describe, look_at

        found = look_at(data, size=size, out=out, overrides=overrides or [], reporter=reporter)
    lines = output.layout(describe(found))
    lines += ["", f"{'look at':{output.HEADING}}{found['files_written']['contact-sheet.png']}"]
    lines += [f"{'go on':{output.HEADING}}{found['train']}"]
    output.result(found, lines, as_json=as_json)
