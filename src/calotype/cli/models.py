"""`calotype models`: the models that can be named."""

from __future__ import annotations

from typing import Any

from calotype.cli import options, output

_COLUMNS = ("name", "takes", "pixels", "MB", "score", "licence")


def models(as_json: options.Json = False) -> None:
    """List the models at hand: shipped ones and the runs in runs/.

    A folder of yours that holds a model comes before a shipped one of the same name.
    """
    from calotype.pipeline.shipped import list_models

    found = list_models()
    if not found:
        output.say("no models yet: 'calotype quickstart' makes one in ten minutes")
    output.result({"models": found}, _table(found), as_json=as_json)


def _table(found: list[dict[str, Any]]) -> list[str]:
    """Name, what it takes, pixels, size, main score and licence in columns; what is wrong with one beside its name."""
    if not found:
        return []
    cells = [_COLUMNS, *(_row(model) for model in found)]
    whole = [row for row in cells if len(row) == len(_COLUMNS)]
    widths = [max(len(row[0]) for row in cells), *(max(len(row[i]) for row in whole) for i in range(1, len(_COLUMNS)))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    name = output.one_line(str(model["name"]))
    if model.get("problem"):
        return name, f"unusable: {output.one_line(str(model['problem']))}"
    told = {**model, "MB": f"{model['bytes'] / 1e6:.1f}"}
    return name, *(output.one_line(str(told.get(key) or "-")) for key in _COLUMNS[1:])
