"""The pictures that are scored: what the model draws when asked, and what its autoencoder keeps of real ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float, to_uint8
from calotype.inspection.scores.roles import Asked
from calotype.pipeline import Pipeline

BATCH = 64


@dataclass(frozen=True)
class Settings:
    """How the model is asked: fields of its sampling section that differ from its own, pictures a prompt, seed.

    `thorough`: look for copies among features too, which takes those of every training picture's reconstruction.
    """

    seed: int = 0
    num_images: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thorough: bool = True


def draw(
    model: Pipeline, pictures: PictureSet, rows: Tensor, kind: Asked, settings: Settings, reporter: Reporter
) -> tuple[Tensor, float]:
    """`num_images` for each row's caption or class, (n, 3, s, s) uint8, a row's side by side; and the seconds it took.

    Picture k has seed + k, whatever is drawn with it.
    """
    drawn: list[Tensor] = []
    started, total, done = time.monotonic(), len(rows) * settings.num_images, 0
    per_call = max(1, BATCH // settings.num_images)
    for part in rows.split(per_call):
        asked = _words(pictures, part, kind)
        images = model.sample_tensor(
            asked if kind == "captions" else None,
            labels=asked if kind == "classes" else None,
            num_images=settings.num_images * (len(part) if kind == "nothing" else 1),
            seed=settings.seed + done,
            settings=settings.sampling,
        )
        drawn.append(to_uint8(images))
        done += len(images)
        spent = time.monotonic() - started
        reporter.update(done, total, rate=done / spent, eta=(total - done) * spent / done)
    return torch.cat(drawn), time.monotonic() - started


def _words(pictures: PictureSet, rows: Tensor, kind: Asked) -> Sequence[str]:
    told = pictures.captions if kind == "captions" else pictures.labels
    return [str(told[row]) for row in rows.tolist()]


@torch.no_grad()
def reconstruct(model: Pipeline, pixels: Tensor) -> Tensor:
    """uint8 (n, 3, s, s) through the autoencoder and back, in batches."""
    parts = [
        to_uint8(model.decode(model.encode(to_float(part).to(model.device)))).cpu() for part in pixels.split(BATCH)
    ]
    return torch.cat(parts) if parts else pixels
