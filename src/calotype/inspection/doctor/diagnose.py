"""`diagnose`: every check that the evidence allows, and what they found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.inspection.doctor import course, drawing, files, latents, learning, pictures, sampling, words
from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown, gather
from calotype.inspection.doctor.finding import Diagnosis, Finding

THEMES: Mapping[str, Checks] = {
    "files": files.CHECKS,
    "pictures": pictures.CHECKS,
    "words": words.CHECKS,
    "course": course.CHECKS,
    "latents": latents.CHECKS,
    "learning": learning.CHECKS,
    "sampling": sampling.CHECKS,
    "samples": drawing.CHECKS,
}


FOLLOWS: Mapping[str, frozenset[str]] = {  # what comes of a cause, and need not be told beside it
    "tint": frozenset({"latent-scale", "dead-channel", "bundle-settings", "few-steps"}),
    "sample-contrast": frozenset({"latent-scale", "bundle-settings", "ema-young", "hardly-trained", "few-steps"}),
    "vae-undertrained": frozenset({"dead-channel"}),
    "saturated-guidance": frozenset({"latent-scale"}),
    "guidance-range": frozenset({"saturated-guidance"}),
    "condition-unheard": frozenset({"hardly-trained", "learning-rate-low", "learning-rate-high", "caption-mismatch"}),
    "caption-mismatch": frozenset({"flat-pictures"}),
    "class-mismatch": frozenset({"flat-pictures"}),
    "enlarged": frozenset({"too-little-data"}),
}


def diagnose(
    target: str | Path,
    *,
    device: str = "auto",
    reporter: Reporter | None = None,
    themes: Collection[str] = tuple(THEMES),
) -> Diagnosis:
    """Look at a run, a model or a set of pictures; changes nothing. UserError where there is no such thing.

    Findings come worst first: faults before warnings, files before what is made of them. `themes` of `THEMES` are
    looked at: "files", "pictures" and "course" ask no network.
    """
    reporter = reporter or Silent()
    evidence = gather(target, choose_device(device), reporter)
    findings: list[Finding] = []
    checked: list[str] = []
    reporter.stage("doctor", ", ".join(theme for theme in THEMES if theme in themes))
    with evidence.held:
        for theme, checks in THEMES.items():
            if theme not in themes:
                continue
            for name, check in checks.items():
                try:
                    findings += check(evidence)
                except Unknown:
                    continue
                except UserError as error:
                    if not any(finding.level == "fault" for finding in findings):  # else this is what comes of it
                        findings.append(Finding("unreadable", "fault", error.what, error.mend or "restore it"))
                    continue
                checked.append(name)
        facts = _facts(evidence)
    names = {finding.name for finding in findings}
    causes = [finding for finding in findings if not FOLLOWS.get(finding.name, frozenset()) & names]
    ordered = sorted(causes, key=lambda finding: finding.level != "fault")
    return Diagnosis(evidence.kind, str(target), tuple(ordered), tuple(checked), facts)


def _facts(evidence: Evidence) -> dict[str, Any]:
    """What was looked at, in figures."""
    facts: dict[str, Any] = {}
    try:
        pictures = evidence.pictures
        facts["data"] = {
            "source": pictures.source,
            "pictures": len(pictures),
            "held_out": len(pictures.held_out_ids),
            "size": pictures.size,
        }
    except (Unknown, UserError):
        pass  # a finding has said so
    if evidence.kind == "run":
        facts["steps"] = {stage: evidence.steps(stage) for stage in ("vae", "denoiser")}
        facts["running"] = evidence.running
    return facts
