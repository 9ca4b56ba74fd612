"""The pictures of a run as latents; where several processes work on it, each encodes its share."""

from __future__ import annotations

from pathlib import Path

import torch

from calotype.core import distributed
from calotype.core.errors import CorruptFileError
from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet, load_prepared
from calotype.latents import FirstStage, LatentSet, build_vae, encode_pictures
from calotype.pipeline.intake import mirrored
from calotype.pipeline.run import Run, stage_weights


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


def assist(run: Run, from_model: str | Path | None, device: torch.device, reporter: Reporter) -> None:
    """What every process of a group but the first does: encode its share, once the first one has trained the VAE."""
    distributed.barrier()
    pictures = load_prepared(run.data)
    if pictures is None:
        raise CorruptFileError(f"{run.data} is not whole", "give all processes the same --out")
    recipe = run.recipe
    vae = build_vae(recipe.vae.network).to(device)
    vae.load_state_dict(stage_weights(run.vae))
    latents_of(
        run,
        pictures,
        vae.eval(),
        mirrored=mirrored(recipe, pictures, reporter),
        from_model=from_model,
        reporter=reporter,
    )
