"""Pictures made during training, so that one can see it work: reconstructions, then samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.images.dataset import PictureSet
from calotype.images.grid import plot_images, save_png
from calotype.images.pixels import to_float
from calotype.latents import FirstStage

if TYPE_CHECKING:
    from PIL import Image

    from calotype.pipeline.pipeline import Pipeline

Preview = Callable[[int, nn.Module, nn.Module], None]
SHOWN = 16
MAX_STEPS = 50  # of a preview's sampling: a look, not a result


def shown_ids(pictures: PictureSet) -> Tensor:
    """Pictures to reconstruct in previews: held-out ones, or training ones where none are."""
    ids = pictures.held_out_ids if len(pictures.held_out_ids) else pictures.train_ids
    return ids[:: max(1, len(ids) // SHOWN)][:SHOWN]


@torch.no_grad()
def reconstructions(vae: FirstStage, pictures: PictureSet, ids: Tensor, path: Path) -> None:
    """A sheet with originals above their reconstructions, written by rank 0; a spread VAE needs every process."""
    images = to_float(pictures.pixels[ids])
    device = next(vae.parameters()).device
    decoded = vae.decode(vae.encode(images.to(device))[0]).clamp(-1, 1).cpu()
    if distributed.rank() == 0:
        save_png(plot_images(torch.cat([images, decoded]), columns=len(ids)), path)


def samples(model: Pipeline, path: Path, limit: int, num_steps: int | None = None) -> Image.Image:
    """A sheet of samples, one for each example prompt or class, captioned; the same seeds every time.

    Where several processes work together all call this: each draws its share, so that none waits for another, and
    rank 0 writes the sheet.
    """
    words: list[str] = []
    if model.captioned:
        words = model.examples[:limit]
    elif model.classes:
        words = [model.classes[i % len(model.classes)] for i in range(max(limit, min(len(model.classes), 64)))]
    drawn = shared_rows(len(words) or limit, lambda rows: _drawn(model, words, rows, num_steps))
    sheet = plot_images(drawn, captions=words or None)
    if distributed.rank() == 0:
        save_png(sheet, path, {"seed": 0, **({"prompt": "; ".join(words)} if words else {})})
    return sheet


def _drawn(model: Pipeline, words: list[str], rows: range, num_steps: int | None) -> Tensor:
    """The samples of these rows of the sheet; a row's seed is its number, whoever draws it."""
    chosen, seed = words[rows.start : rows.stop], rows.start
    if model.captioned:
        return model.sample_tensor(chosen, seed=seed, num_steps=num_steps)
    if model.classes:
        return model.sample_tensor(labels=chosen, seed=seed, num_steps=num_steps)
    return model.sample_tensor(num_images=len(rows), seed=seed, num_steps=num_steps)


def shared_rows(count: int, draw: Callable[[range], Tensor]) -> Tensor:
    """All rows, of which each process draws an equal share; one that has none draws the first, for company."""
    share = -(-count // distributed.world_size())
    first = distributed.rank() * share
    mine = range(first, min(first + share, count)) if first < count else range(1)
    drawn = draw(mine)
    rows = torch.zeros(count, *drawn.shape[1:])
    if first < count:
        rows[mine.start : mine.stop] = drawn
    return distributed.total(rows)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """A network in training, for the time of a look at what it can do."""
    training, learning = network.training, [p for p in network.parameters() if p.requires_grad]
    try:
        yield
    finally:
        network.train(training)
        for parameter in learning:
            parameter.requires_grad_()
