"""Small runs of the real path that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.pipeline import Run, train

QUICK = ["vae.steps=6", "vae.training.batch_size=4", "training.batch_size=4", "training.log_every=2"]
QUICK += ["network.channels=[16, 32]", "network.emb_channels=32", "network.condition_channels=32"]


def paint(folder: Path, classes: tuple[str, ...] = ("disc", "stripe"), each: int = 8) -> Path:
    """Pictures of 40 px, one folder a class, no two alike."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for kind in classes:
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            shape = (x - 20) ** 2 + (y - 20) ** 2 < draw.integers(60, 300) if kind == "disc" else (x // 4 + i) % 3 == 0
            pixels = np.where(shape[..., None], draw.integers(0, 255, 3), 250).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def class_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on two classes of drawn pictures."""
    home = tmp_path_factory.mktemp("class-run")
    return train(paint(home / "shapes"), out=home / "run", size=32, steps=4, overrides=QUICK)
