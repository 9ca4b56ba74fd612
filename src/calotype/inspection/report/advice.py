"""The report's section on what the doctor found, and what the curves say of more training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.inspection.outlook import outlook_of
from calotype.inspection.report.page import Section, section

if TYPE_CHECKING:
    from calotype.inspection.doctor import Diagnosis, Finding

_ORDER = "The doctor measured the run and names causes, the worst first, each with its remedy."


def outlook_in_short(run: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Whether more training helps, in a sentence or two; empty before there is anything to judge by."""
    begun = any(record.get("stage") == "denoiser" for record in records)
    return outlook_of(run).sentence if begun else ""


def examine(run: Path, device: str, reporter: Reporter) -> Diagnosis | None:
    """What the doctor says of the run; None where it cannot say anything."""
    from calotype.inspection.doctor import diagnose

    try:
        return diagnose(run, device=device, reporter=reporter)
    except UserError:
        return None


def doctor_section(diagnosis: Diagnosis | None) -> Section | None:
    """The findings as a list; a run in good health gets a line."""
    if diagnosis is None or not diagnosis.checked:
        return None
    words = _ORDER if diagnosis.findings else f"{_sentence(diagnosis.summary)}."
    found = "".join(f'<li class="{finding.level}">{_told(finding)}</li>\n' for finding in diagnosis.findings)
    return section("What the doctor says", words, f'<ul class="found">\n{found}</ul>\n' if found else "")


def _told(finding: Finding) -> str:
    return f"{escape(_sentence(finding.what))}. Remedy: {escape(finding.remedy)}."


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
