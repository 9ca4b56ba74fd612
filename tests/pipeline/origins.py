"""A small model whose VAE serves drawn shapes, put up as a shipped one, and pictures that it cannot do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.progress import Silent
from calotype.latents import Codec, ConvVAE, LatentStatistics
from calotype.network.unet import UNet
from calotype.pipeline import Run, shipped, train
from calotype.pipeline.bundle import assemble, save_bundle
from calotype.recipes import get_recipe
from tests.pipeline.conftest import QUICK, paint

PLAIN = [setting for setting in QUICK if not setting.startswith("vae.")]  # nothing of the first stage is asked for
FEW = ["vae.steps=4", "vae.training.batch_size=4"]


class Told(Silent):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)


def paint_weave(folder: Path, count: int = 16) -> Path:
    """Coloured noise without an outline in it."""
    draw = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(draw.integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def go(data: Path, out: Path, *overrides: str, **settings: Any) -> Run:
    return train(data, out=out, size=32, **{"steps": 2, "overrides": [*PLAIN, *overrides], **settings})


def first_segment(run: Run) -> dict[str, Any]:
    """What the journal says of the first stage."""
    events = [json.loads(line) for line in run.journal.read_text().splitlines()]
    return next(event for event in events if event.get("stage") == "vae")


def put_up(monkeypatch: pytest.MonkeyPatch, home: Path, *models: Path) -> Path:
    """Have the package carry these models and nothing else."""
    (home / "models").mkdir()
    for folder in models:
        shutil.copytree(folder, home / "models" / folder.name)
    monkeypatch.setattr(shipped, "shipped_folder", lambda: home / "models")
    return home / "models"


def make_autoencoder(home: Path) -> tuple[Path, Path]:
    """The bundle of a model with an autoencoder of drawn shapes, and the shapes."""
    shapes = paint(home / "shapes")
    settings = ["vae.steps=120", "vae.training.batch_size=8", "vae.training.ema_halflife=80"]
    run = train(
        shapes, out=home / "run", size=32, steps=1, overrides=[*PLAIN, *settings, "vae.network.channels=[32, 48]"]
    )
    shutil.copytree(run.model, home / "shapes-32")
    return home / "shapes-32", shapes


def with_vae(vae: ConvVAE, folder: Path) -> Path:
    """The bundle of a model with this VAE and a small denoiser that learnt nothing."""
    recipe = get_recipe("calotype", 32).with_overrides(QUICK)
    statistics = LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=1.0)
    recipe = recipe.model_copy(update={"vae": recipe.vae.model_copy(update={"network": vae.config})})
    codec = Codec(vae, statistics, recipe.size)
    facts = {"name": folder.name}
    save_bundle(assemble(recipe, codec, UNet(recipe.network), [], facts, torch.device("cpu")), folder)
    return folder
