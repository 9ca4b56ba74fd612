"""`calotype models`: the models that can be named."""

from __future__ import annotations

from typing import Any

from calotype.cli import options, output


def models(as_json: options.Json = False) -> None:
    """List the models at hand: shipped ones and runs."""
    from calotype.pipeline import list_models

    found = list_models()
    if not found:
        output.say("no models yet: 'calotype quickstart' makes one in ten minutes")
    output.result({"models": found}, _table(found), as_json=as_json)


def _table(found: list[dict[str, Any]]) -> list[str]:
    """Name, kind, size, licence and path in columns."""
    if not found:
        return []
    columns = ("name", "kind", "size", "licence", "path")
    rows = [columns] + [tuple(output.one_line(str(model.get(key) or "-")) for key in columns) for model in found]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
