"""The report's section on the lab: which ways of drawing were tried, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json
from calotype.inspection.lab import RECORD
from calotype.inspection.lab import table as rows_of
from calotype.inspection.report.page import Section, code, folded, note, section, table

_FRONT = "None of the others is both better and faster than one of these"


def lab_section(run: Path) -> Section | None:
    """The outcome, the front of quality against time, and all that was tried; None where nothing was tried since."""
    record = _read(run)
    if record is None:
        return None
    front = sorted((one for one in record["settings"] if one["key"] in record["front"]), key=lambda one: one["passes"])
    made = record["made"]
    told = (
        f"{made['count']:,} pictures a setting, the same prompts and seeds (from {made['seed']:,}) for all, against "
        f"{made['reference']:,} training pictures; features of {made['extractor']['name']} "
        f"(sha256 {made['extractor']['sha256'][:12]}). Cost: 1 is the model as it was, 0 what its autoencoder allows."
    )
    return section(
        "Ways of drawing with it",
        escape(record["summary"]),
        table(_FRONT, [(one["words"].capitalize(), _scored(one)) for one in front]),
        folded(f"All {len(record['settings'])} settings", code("\n".join(rows_of(record)))),
        note(told),
    )


def _scored(one: Mapping[str, Any]) -> str:
    asked = f", {100 * one['fidelity']['value']:.0f} % as asked" if one["fidelity"] else ""
    return (
        f"kernel distance {1000 * one['kernel']['value']:.1f} · 10⁻³{asked}, {one['passes']:.0f} passes, "
        f"{one['seconds']:.2f} s a picture"
    )


def _read(run: Path) -> Mapping[str, Any] | None:
    """RUN/lab.json, unless the run was trained on after it."""
    path = run / RECORD
    if not path.is_file():
        return None
    learned = max((folder.stat().st_mtime for folder in (run / "denoiser").glob("step-*")), default=0.0)
    try:
        record = read_json(path)
        known = record["made"], record["settings"], record["front"], record["summary"]
    except (CorruptFileError, KeyError, TypeError):
        return None
    return record if all(known) and path.stat().st_mtime >= learned else None
