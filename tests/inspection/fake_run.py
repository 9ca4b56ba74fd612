"""A small run and a model whose pictures are known, so that the page can be checked against them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from calotype.core.files import append_line
from calotype.core.progress import Silent
from calotype.images.dataset import PictureSet, prepare
from calotype.images.source import Picture, Source
from calotype.process import VariancePreserving

SIZE = 16


def flat_picture(seed: int) -> Image.Image:
    """One colour that tells the seed: red = seed."""
    return Image.new("RGB", (SIZE, SIZE), (seed % 256, 40, 200))


class FakeModel:
    """Codec: means over 4 × 4 pixels. Sampler: `flat_picture(seed + k)`. Every call is written down."""

    process = VariancePreserving.cosine()
    device = torch.device("cpu")

    def __init__(self, *, captioned: bool = False, classes: Sequence[str] = ()) -> None:
        self.captioned, self.classes = captioned, list(classes)
        self.facts: dict[str, Any] = {
            "name": "tiny",
            "vae_parameters": 1234,
            "denoiser_parameters": 56789,
            "versions": {"calotype": "0.0.7"},
        }
        self.calls: list[dict[str, Any]] = []

    def sample(self, prompts: list[str] | None = None, **settings: Any) -> list[Image.Image]:
        self.calls.append({"prompts": prompts, **settings})
        return [flat_picture(settings["seed"] + k) for k in range(self._count(prompts, settings))]

    def stream(self, prompts: list[str] | None = None, **settings: Any) -> Iterator[Any]:
        shape = (self._count(prompts, settings), 3, SIZE // 4, SIZE // 4)
        for k in range(settings["num_steps"]):
            done = (k + 1) / settings["num_steps"]
            yield SimpleNamespace(step=k, x_t=torch.full(shape, done - 1), x0_hat=torch.full(shape, done))

    def encode(self, images: Tensor) -> Tensor:
        return avg_pool2d(images, 4)

    def decode(self, x0: Tensor) -> Tensor:
        return interpolate(x0, scale_factor=4.0)

    def _count(self, prompts: list[str] | None, settings: dict[str, Any]) -> int:
        return len(prompts or settings.get("labels") or [""]) * settings.get("num_images", 1)


def make_pictures(
    folder: Path, captions: Sequence[str | None], labels: Sequence[str | None] | None = None, size: int = SIZE
) -> PictureSet:
    """Prepared noise pictures; every fourth is held out."""
    labels = labels or [None] * len(captions)
    pictures = [
        Picture(f"{k:03}.png", partial(_noise, k, size), caption, label, "held-out" if k % 4 == 3 else "train")
        for k, (caption, label) in enumerate(zip(captions, labels, strict=True))
    ]
    source = Source("sketches", pictures, attribution="Drawn by A & B", licence="CC0")
    return prepare(source, size, folder / "data", Silent())


def write_metrics(run: Path) -> None:
    """Both stages, ten records each, one second apart."""
    for at, stage in enumerate(("vae", "denoiser")):
        for k in range(1, 11):
            record = {"stage": stage, "step": 10 * k, "loss": 1 / k, "lr": 1e-3, "rate": 100.0, "time": 100.0 * at + k}
            append_line(run / "metrics.jsonl", record | ({"reconstruction": 0.9 / k, "kl": 3.0} if at == 0 else {}))
            held = (
                {"held_out_psnr": 15.0 + k, "held_out_ssim": 0.8}
                if at == 0
                else {"held_out_error": 0.9 / k + 0.1, "train_error": 1 / k}
            )
            append_line(run / "metrics.jsonl", {"stage": stage, "step": 10 * k, **held})


def quarantine(run: Path, *names: str) -> None:
    lines = [json.dumps({"path": name, "reason": "truncated", "bytes": 7}) for name in names]
    (run / "data" / "quarantine.jsonl").write_text("\n".join(lines) + "\n")


def _noise(seed: int, size: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
