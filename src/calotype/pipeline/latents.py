"""The pictures of a run as latents; where several processes work on it, each encodes its share."""

from __future__ import annotations

from pathlib import Path

from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet
from calotype.latents import FirstStage, LatentSet, encode_pictures
from calotype.pipeline.run import Run


def latents_of(
    run: Run,
    pictures: PictureSet,
    vae: FirstStage,
    *,
    mirrored: bool,
    from_model: str | Path | None,
    reporter: Reporter,
) -> LatentSet:
    """Encode every picture once, here or in a run beside this one; mean and std are of the training part."""
    beside = sorted(run.folder.parent.glob("*/latents"))
    if from_model is not None:
        beside = [Path(from_model).expanduser() / "latents", *beside]
    return encode_pictures(vae, pictures, run.latents, mirrored=mirrored, reporter=reporter, beside=beside)
