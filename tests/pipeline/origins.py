"""A small autoencoder that serves drawn shapes, put up as a shipped one, and pictures that it cannot do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calotype.core.progress import Silent
from calotype.pipeline import Run, shipped, train
from calotype.pipeline.autoencoder import load_autoencoder, save_autoencoder
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


def put_up(monkeypatch: pytest.MonkeyPatch, home: Path, *autoencoders: Path) -> Path:
    """Have the package carry these autoencoders and nothing else."""
    (home / "models").mkdir()
    for folder in autoencoders:
        shutil.copytree(folder, home / "models" / folder.name)
    monkeypatch.setattr(shipped, "shipped_folder", lambda: home / "models")
    return home / "models"


def make_autoencoder(home: Path) -> tuple[Path, Path]:
    """The folder of an autoencoder of drawn shapes, and the shapes."""
    shapes = paint(home / "shapes")
    settings = ["vae.steps=120", "vae.training.batch_size=8", "vae.training.ema_halflife=80"]
    run = train(
        shapes, out=home / "run", size=32, steps=1, overrides=[*PLAIN, *settings, "vae.network.channels=[32, 48]"]
    )
    vae, facts = load_autoencoder(run.folder)
    facts = {"name": "vae-f8", "measured": {"held_out_psnr": facts["measured"]["held_out_psnr"]}}
    save_autoencoder(vae, facts, home / "vae-f8", half=True)
    return home / "vae-f8", shapes
