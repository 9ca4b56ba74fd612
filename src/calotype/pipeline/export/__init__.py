"""Leaving calotype: a model written for other libraries, which then draw the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.core.errors import UserError, nearest
from calotype.core.files import write_folder

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


def _onnx(model: Pipeline, folder: Path) -> dict[str, Any]:
    from calotype.pipeline.export.onnx import export_onnx

    return export_onnx(model, folder)


def _diffusers(model: Pipeline, folder: Path) -> dict[str, Any]:
    from calotype.pipeline.export.diffusers import export_diffusers

    return export_diffusers(model, folder)


FORMATS: dict[str, Callable[[Pipeline, Path], dict[str, Any]]] = {"diffusers": _diffusers, "onnx": _onnx}


def export(model: Pipeline, to: str, out: Path) -> dict[str, Any]:
    """Write `model` into the new folder `out` as a format of `FORMATS`, whole or not at all.

    Returns the facts: files with their bytes, and how far the pictures are from torch's, which is measured. UserError
    for an unknown format, a folder that is not empty, a missing extra, and what the format cannot express.
    """
    check_export(to, out)
    reason = possible(model)[to]
    if reason:
        raise UserError(f"this model cannot be exported to {to}", reason)
    facts: dict[str, Any] = {}

    def fill(aside: Path) -> None:
        facts.update(FORMATS[to](model, aside))

    write_folder(out, fill)
    sizes = {str(path.relative_to(out)): path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()}
    return {"format": to, "folder": str(out), "files": sizes, **facts}


def check_export(to: str, out: Path) -> None:
    """UserError for an unknown format, and for a folder that is not empty: nothing of anybody's is replaced."""
    if to not in FORMATS:
        raise UserError(f"unknown export format '{to}'", nearest(to, FORMATS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and is not empty", "give a new folder")


def possible(model: Pipeline) -> dict[str, str]:
    """For each format: "" where the model can be exported to it, else why it cannot."""
    from calotype.pipeline.export.diffusers import why_not_diffusers

    return {"diffusers": why_not_diffusers(model), "onnx": ""}
