"""Pictures made during training, so that one can see it work: reconstructions, then samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calotype.images.dataset import PictureSet
from calotype.images.grid import plot_images, save_png
from calotype.images.pixels import to_float
from calotype.latents import FirstStage

if TYPE_CHECKING:
    from PIL import Image

    from calotype.pipeline.pipeline import Pipeline

Preview = Callable[[int, nn.Module], None]
SHOWN = 16
MAX_STEPS = 50  # of a preview's sampling: a look, not a result


def shown_ids(pictures: PictureSet) -> Tensor:
    """Pictures to reconstruct in previews: held-out ones, or training ones where none are."""
    ids = pictures.held_out_ids if len(pictures.held_out_ids) else pictures.train_ids
    return ids[:: max(1, len(ids) // SHOWN)][:SHOWN]


@torch.no_grad()
def reconstructions(vae: FirstStage, pictures: PictureSet, ids: Tensor, path: Path) -> None:
    """A sheet with originals above their reconstructions."""
    images = to_float(pictures.pixels[ids])
    device = next(vae.parameters()).device
    decoded = vae.decode(vae.encode(images.to(device))[0]).clamp(-1, 1).cpu()
    save_png(plot_images(torch.cat([images, decoded]), columns=len(ids)), path)


def samples(model: Pipeline, path: Path, limit: int, num_steps: int | None = None) -> Image.Image:
    """A sheet of samples, one for each example prompt or class, captioned; the same seeds every time."""
    settings: dict[str, str | int] = {"seed": 0}
    if model.captioned:
        prompts = model.examples[:limit]
        sheet = plot_images(model.sample_tensor(prompts, num_steps=num_steps), captions=prompts)
        settings["prompt"] = "; ".join(prompts)
    elif model.classes:
        chosen = [model.classes[i % len(model.classes)] for i in range(max(limit, min(len(model.classes), 64)))]
        sheet = plot_images(model.sample_tensor(labels=chosen, num_steps=num_steps), captions=chosen)
        settings["prompt"] = "; ".join(chosen)
    else:
        sheet = plot_images(model.sample_tensor(num_images=limit, num_steps=num_steps))
    save_png(sheet, path, settings)
    return sheet
