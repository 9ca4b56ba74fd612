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

from calotype.core.files import append_line, write_json
from calotype.core.progress import Silent
from calotype.images.dataset import PictureSet, prepare
from calotype.images.source import Picture, Source
from calotype.process import VariancePreserving
from calotype.recipes import SamplingSection

SIZE = 16


def flat_picture(seed: int) -> Image.Image:
    """One colour that tells the seed: red = seed."""
    return Image.new("RGB", (SIZE, SIZE), (seed % 256, 40, 200))


class FakeModel:
    """Codec: means over 4 × 4 pixels. Sampler: `flat_picture(seed + k)`, from black. Every call is written down."""

    process = VariancePreserving.cosine()
    device = torch.device("cpu")

    def __init__(self, *, captioned: bool = False, classes: Sequence[str] = (), num_steps: int = 20) -> None:
        self.captioned, self.classes = captioned, list(classes)
        self.recipe = SimpleNamespace(sampling=SamplingSection(num_steps=num_steps, guidance_scale=2.5))
        self.facts: dict[str, Any] = {
            "name": "tiny",
            "vae_parameters": 1234,
            "denoiser_parameters": 56789,
            "denoiser_steps": 77,
            "vae_steps": 33,
            "versions": {"calotype": "0.0.7"},
        }
        self.calls: list[dict[str, Any]] = []

    def stream(self, prompts: list[str] | None = None, **wishes: Any) -> Iterator[Any]:
        self.calls.append({"prompts": prompts, **wishes})
        count = len(prompts or wishes.get("labels") or [""]) * wishes.get("num_images", 1)
        drawn = self.latents(wishes["seed"], count)
        for k in range(1, self.recipe.sampling.num_steps + 1):
            done = k / self.recipe.sampling.num_steps
            yield SimpleNamespace(step=k, x_t=done * drawn + done - 1, x0_hat=drawn)

    def latents(self, seed: int, count: int) -> Tensor:
        """What is drawn in the end."""
        pixels = torch.tensor([flat_picture(seed + k).getpixel((0, 0)) for k in range(count)])
        return (pixels[:, :, None, None] / 127.5 - 1).expand(-1, -1, SIZE // 4, SIZE // 4)

    def encode(self, images: Tensor) -> Tensor:
        return avg_pool2d(images, 4)

    def decode(self, x0: Tensor) -> Tensor:
        return interpolate(x0, scale_factor=4.0)


class Copier(FakeModel):
    """It gives back picture number k for the k-th thing asked for."""

    def __init__(self, pictures: PictureSet, **settings: Any) -> None:
        super().__init__(**settings)
        self.known = pictures.pixels

    def latents(self, seed: int, count: int) -> Tensor:
        return self.encode(self.known[:count].float() / 127.5 - 1)


def make_pictures(
    folder: Path,
    captions: Sequence[str | None],
    labels: Sequence[str | None] | None = None,
    size: int = SIZE,
    *,
    blocks: int = 1,
) -> PictureSet:
    """Prepared pictures of noise in squares of `blocks` pixels; every fourth is held out."""
    labels = labels or [None] * len(captions)
    pictures = [
        Picture(f"{k:03}.png", partial(_noise, k, size, blocks), caption, label, "held-out" if k % 4 == 3 else "train")
        for k, (caption, label) in enumerate(zip(captions, labels, strict=True))
    ]
    source = Source("sketches", pictures, attribution="Drawn by A & B", licence="CC0")
    return prepare(source, size, folder / "data", Silent())


def write_metrics(run: Path) -> None:
    """Both stages, ten records each, one second apart."""
    for at, stage in enumerate(("vae", "denoiser")):
        for k in range(1, 11):
            record = {"stage": stage, "step": 10 * k, "loss": 1 / k, "lr": 1e-3, "rate": 100.0, "time": 100.0 * at + k}
            record |= {"loss_by_noise": [0.9, None if k == 3 else 0.5, 0.1 / k]} if at else {}
            append_line(run / "metrics.jsonl", record | ({"reconstruction": 0.9 / k, "kl": 3.0} if at == 0 else {}))
            held = (
                {"held_out_psnr": 15.0 + k, "held_out_ssim": 0.8}
                if at == 0
                else {"held_out_error": 0.9 / k + 0.1, "train_error": 1 / k, "kernel_distance": 0.5 / k}
            )
            append_line(run / "metrics.jsonl", {"stage": stage, "step": 10 * k, **held})


def quarantine(run: Path, *names: str) -> None:
    lines = [json.dumps({"path": name, "reason": "truncated", "bytes": 7}) for name in names]
    (run / "data" / "quarantine.jsonl").write_text("\n".join(lines) + "\n")


def _noise(seed: int, size: int, blocks: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size // blocks, size // blocks, 3), dtype=np.uint8)
    pixels = pixels.repeat(blocks, 0).repeat(blocks, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


E = dict[str, float]


def about(value: float, width: float = 0.02, count: int = 96) -> E:
    """An estimate as records hold it."""
    return {"value": value, "low": value - width, "high": value + width, "count": count}


def distances(kernel: float, precision: float) -> dict[str, E]:
    shares = {name: about(precision) for name in ("precision", "recall", "density", "coverage")}
    return {"kernel": about(kernel), "frechet": about(100 * kernel), "frechet_infinity": about(90 * kernel), **shares}


def write_scores(run: Path, verdict: str = "memory", **changes: Any) -> dict[str, Any]:
    """evaluation.json as `calotype evaluate` leaves it."""
    memory = {"copies": about(0.75), "baseline": about(0.04), "nearer": about(0.97), "recalled": about(0.625)}
    captions = {"top1": about(0.3), "top5": about(0.55), "ceiling1": about(0.6), "ceiling5": about(0.8)}
    captions |= {"chance1": 0.01, "chance5": 0.05, "prompts": 96, "images_per_prompt": 1, "gallery": 100}
    sampling = SamplingSection(num_steps=20, guidance_scale=2.5, threshold="dynamic")
    record = {
        "format": 2,
        "model": None,
        "extractor": {"name": "efficientnet-lite0", "sha256": "5793" * 16, "dim": 1280},
        "data": "sketches",
        "made": {
            "count": 96,
            "seed": 100_000,
            "asked": "captions",
            "weights": "averaged",
            "num_images": 1,
            "sampling": sampling.model_dump(mode="json"),
        },
        "seconds": {"sampling": 1.0, "features": 2.0, "scores": 0.1},
        "distances": {
            "samples": distances(0.3, 0.5),
            "ceiling": distances(0.06, 0.8),
            "floor": distances(0.01, 0.97),
            "reference": 60,
        },
        "fidelity": {"captions": captions, "held_out_captions": None, "classes": None},
        "memorization": {
            "verdict": verdict,
            "summary": "75% of the samples are <copies>.",
            "pixels": memory | {"threshold": 0.3},
            "features": None,
        },
        "nearest": [
            {"place": 0, "prompt": "thing 1", "label": None, "name": "001.png", "row": 1, "distance": 0.1, "copy": True}
        ],
    } | changes
    write_json(run / "evaluation.json", record)
    if not (run / "model").exists():
        (run / "model").mkdir()
        write_json(run / "model" / "model.json", {"recipe": {"sampling": record["made"]["sampling"]}})
    return record
