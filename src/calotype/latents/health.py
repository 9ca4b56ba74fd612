"""The gate between the stages: are these latents whole, well scaled, and worth a denoiser's time?

It reads a sample of the cache as the denoiser will, encodes some pictures afresh, and looks at what comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_json
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.latents import health_checks as checks
from calotype.latents import health_kept as kept_by
from calotype.latents import health_measures as measures
from calotype.latents.cache import LatentSet
from calotype.latents.codec import Codec, LatentStatistics
from calotype.latents.health_checks import Finding
from calotype.latents.health_picture import Shown, draw

Verdict = Literal["pass", "warn", "refuse"]

FORMAT = 1
RECORD = "health.json"
SHOWN = 8
LEAST_COMPARED = 16  # pictures below which a distance between two sets of them says nothing


@dataclass(frozen=True)
class Health:
    """The verdict, what led to it, and every number; `write` leaves both where a person finds them."""

    findings: tuple[Finding, ...]
    measures: dict[str, Any]
    shown: Shown

    @property
    def verdict(self) -> Verdict:
        """The gravest finding's level."""
        levels = {finding.level for finding in self.findings}
        return "refuse" if "refuse" in levels else "warn" if levels else "pass"

    @property
    def broken(self) -> bool:
        """Whether parts do not belong together, so that going on would be time lost in any case."""
        return any(finding.broken for finding in self.findings)

    @property
    def summary(self) -> str:
        """The pass in one line."""
        kept = self.measures["held_out"] or self.measures["trained"]
        kind = "held-out" if self.measures["held_out"] else "training"
        told = "" if kept["psnr"] is None else f"; {kind} pictures come back at {kept['psnr']:.1f} dB"
        return f"the latents are {WORDS[self.verdict]}{told}"

    def write(self, folder: Path) -> None:
        """`health.json` and `health.png` in `folder`."""
        from calotype.images.grid import save_png

        findings = [asdict(finding) for finding in self.findings]
        record = {"format": FORMAT, "verdict": self.verdict, "summary": self.summary}
        save_png(draw(self.shown), folder / "health.png", {"what": self.summary})
        write_json(folder / RECORD, {**record, "findings": findings, "measures": self.measures})


def read_verdict(folder: Path, statistics: LatentStatistics) -> Verdict | None:
    """What was found before of latents with these statistics; None if nothing was."""
    try:
        record = read_json(folder / RECORD)
        known = record["format"] == FORMAT and record["measures"]["statistics"] == statistics.model_dump(mode="json")
        return record["verdict"] if known and record["verdict"] in WORDS else None
    except (CorruptFileError, KeyError, TypeError):
        return None


WORDS = {"pass": "healthy", "warn": "usable, with a warning", "refuse": "not fit to train on"}


@torch.no_grad()
def examine(
    codec: Codec,
    latents: LatentSet,
    pictures: PictureSet,
    *,
    given: bool = False,
    distance: Callable[[Tensor, Tensor], float] | None = None,
) -> Health:
    """Look at at most 2,048 training and 256 held-out pictures' latents; deterministic, a few seconds, bounded memory.

    `given` says that the VAE was trained elsewhere, so that training it longer is no remedy. `distance` of two sets of
    features, if there is one, is also taken between held-out pictures and their reconstructions (the extra `eval`;
    slower); it informs and never decides.
    """
    if len(latents) != len(pictures):
        what = f"the cache holds latents of {len(latents):,} pictures, the data {len(pictures):,}"
        raise UserError(what, checks.ENCODE_AGAIN)
    certain = measures.is_certain_by_design(codec)
    pretrained = given or certain
    train_ids, held_out_ids = pictures.train_ids, pictures.held_out_ids
    probe = measures.affordable(codec, train_ids, measures.MOST_PROBED)
    trained = measures.measure_trained(latents, train_ids, noisy=not certain)
    if trained.channels:
        use = measures.channel_use(codec, trained.x0[:16])
        channels = tuple(replace(channel, use=moved) for channel, moved in zip(trained.channels, use, strict=True))
        trained = replace(trained, channels=channels)
    findings = list(checks.check_finite(trained, all(bool(w.isfinite().all()) for w in codec.vae.parameters())))
    if not findings:
        findings += checks.check_agreement(measures.measure_agreement(codec, latents, pictures, probe[::2]))
        findings += checks.check_scale(trained, latents.statistics, codec.statistics)
    flat = list(checks.check_pictures(*kept_by.picture_spread(pictures, probe)))
    mean_picture = kept_by.mean_of(pictures, train_ids)
    kept, rebuilt = kept_by.measure_kept(codec, pictures, probe, mean_picture)
    looked_at, held = probe, None
    if len(held_out_ids):
        looked_at = measures.affordable(codec, held_out_ids, measures.MOST_HELD_OUT)
        held, rebuilt = kept_by.measure_kept(codec, pictures, looked_at, mean_picture)
    # Of flat pictures nothing else can be said, and everything would be.
    findings += flat or [*checks.check_channels(trained, pretrained), *checks.check_kept(kept, held, pretrained)]
    features = None
    if distance is not None and len(looked_at) >= LEAST_COMPARED:
        others = to_float(pictures.pixels[measures.spread_evenly(train_ids, len(looked_at))])
        features = kept_by.feature_distance(to_float(pictures.pixels[looked_at]), others, rebuilt, distance)
    numbers = {
        "latents": {"shape": list(latents.shape), "pictures": trained.count, "not_finite": trained.not_finite},
        "statistics": latents.statistics.model_dump(mode="json"),
        "channels": [_numbers(channel) for channel in trained.channels],
        "held_out": held and _numbers(held),
        "trained": _numbers(kept),
        "features": features,
    }
    return Health(
        tuple(_gravest_first(findings)), numbers, _shown(codec, latents, pictures, looked_at, mean_picture, trained)
    )


def _shown(
    codec: Codec, latents: LatentSet, pictures: PictureSet, ids: Tensor, mean_picture: Tensor, trained: measures.Trained
) -> Shown:
    """What the picture needs. Reconstructions are from the cache: what the denoiser's best work would look like."""
    ids = measures.spread_evenly(ids, SHOWN)
    originals = to_float(pictures.pixels[ids])
    x0 = latents.standardize(latents.posterior(ids)[0].cpu()).nan_to_num(0, 0, 0)
    rebuilt = codec.decode(x0.to(codec.mean.device)).cpu().float().nan_to_num()
    flat = trained.x0.transpose(0, 1).flatten(1)
    blocks = kept_by.blocks(originals, codec.vae.config.downsampling)
    return Shown(originals, rebuilt, x0, flat, mean_picture, blocks)


def _numbers(record: Any) -> dict[str, float | int | None]:
    """A dataclass's plain numbers, for JSON: four digits are enough, what is undefined is null."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {
        name: (float(f"{value:.4g}") if math.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def _gravest_first(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (not finding.broken, finding.level != "refuse"))
