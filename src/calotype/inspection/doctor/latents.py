"""The latents and the autoencoder they come from: what the gate between the stages finds, looked at again now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from calotype.inspection.doctor.evidence import Checks, Evidence
from calotype.inspection.doctor.finding import Finding, Level

NAMES = {  # of what the gate calls otherwise
    "scale": "latent-scale",
    "cache": "latent-cache",
    "saturation": "latent-saturation",
    "outliers": "latent-outliers",
    "undertrained": "vae-undertrained",
    "grey": "vae-undertrained",
    "memorised": "vae-overfitting",
}
KEPT = ("psnr", "blocks", "mean_picture", "explained", "contrast", "colour")


def _found(*names: str) -> Callable[[Evidence], Iterator[Finding]]:
    """The check for what the gate finds under these of its names."""

    def check(evidence: Evidence) -> Iterator[Finding]:
        told: set[str] = set()
        for finding in evidence.health.findings:  # the gravest first: one of a name is enough
            name = NAMES.get(finding.check, finding.check)
            if finding.check in names and name not in told:
                told.add(name)
                level: Level = "fault" if finding.level == "refuse" else "warning"
                yield Finding(name, level, finding.what, finding.remedy, _figures(evidence.health.measures))

    return check


def _figures(measures: dict[str, Any]) -> dict[str, Any]:
    kept = measures["held_out"] or measures["trained"]
    channels = {key: [channel[key] for channel in measures["channels"]] for key in ("mean", "std", "signal", "use")}
    return {"kept": {key: kept[key] for key in KEPT}, "channels": channels}


CHECKS: Checks = {
    "finite-latents": _found("non-finite"),
    "latent-cache": _found("cache", "latent-channels"),
    "latent-scale": _found("scale"),
    "dead-channels": _found("dead-channel"),
    "latent-shape": _found("saturation", "outliers"),
    "reconstructions": _found("undertrained", "grey", "colour-channels", "flat-pictures"),
    "vae-overfitting": _found("memorised"),
}
