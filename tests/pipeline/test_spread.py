"""Both networks spread over two processes by FSDP2, through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

from calotype.pipeline import Run, train
from tests import ranks
from tests.pipeline.conftest import QUICK, paint

SPREAD = ["vae.training.sharding=fsdp", "training.sharding=fsdp", "vae.training.optimizer.name=adamw"]


def whole_run(folder: Path) -> None:
    """What each process does."""
    train(folder / "shapes", out=folder / "run", size=32, steps=2, overrides=[*QUICK, *SPREAD])


def test_a_spread_vae_is_shown_encodes_and_ends_in_the_bundle(tmp_path: Path) -> None:
    paint(tmp_path / "shapes", each=4)
    with ranks.started() as several:
        several(f"{__name__}:whole_run", 2, tmp_path)
    run = Run(tmp_path / "run")
    assert (run.samples / "vae-00000006.png").is_file()
    assert run.load("cpu").sample(num_images=1, num_steps=2)[0].size == (32, 32)
