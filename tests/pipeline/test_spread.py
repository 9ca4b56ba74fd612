"""Two processes at one run: both networks spread over them by FSDP2, and one word on where the VAE begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from calotype.core import distributed
from calotype.core.progress import Silent
from calotype.latents import ConvVAE, LatentStatistics, VAEConfig
from calotype.pipeline import Run, origin, train
from calotype.pipeline.session import Session
from calotype.recipes import get_recipe
from calotype.training.journal import Budget, Journal
from calotype.training.tracking import Trackers
from tests import ranks
from tests.pipeline.conftest import QUICK, paint

SPREAD = ["vae.training.sharding=fsdp", "training.sharding=fsdp", "vae.training.optimizer.name=adamw"]
SPREAD += ["vae.loss.adversarial_weight=0"]


def whole_run(folder: Path) -> None:
    """What each process does."""
    train(folder / "shapes", out=folder / "run", size=32, steps=2, overrides=[*QUICK, *SPREAD])


def decided(folder: Path, first: str) -> list[object]:
    """What each process comes to where the first one finds `first` amiss with an autoencoder, and others another."""
    statistics = LatentStatistics(mean=(0.0,), std=(1.0,), bound=1.0)
    origin.latents_of = lambda *a, **k: SimpleNamespace(statistics=statistics)  # type: ignore[assignment,misc]
    with distributed.joined(torch.device("cpu")) as device:
        here = first if distributed.rank() == 0 else "another's word"
        origin.what_training_mends = lambda *a: here  # type: ignore[assignment,misc]
        vae, recipe = ConvVAE(VAEConfig(latent_channels=1)), get_recipe("calotype", 32).with_overrides(["vae.from=x"])
        run = Run(folder)
        session = Session(
            run=run,
            recipe=recipe,
            budget=Budget(steps=1),
            device=device,
            reporter=Silent(),
            started=0.0,
            journal=Journal(run.journal),
            trackers=Trackers(folder, [], project="", run="", config={}, reporter=Silent()),
        )
        told, latents = origin.judge(session, vae, SimpleNamespace())  # type: ignore[arg-type]
    return [told["why"], latents is None]


def test_a_spread_vae_is_shown_encodes_and_ends_in_the_bundle_and_the_first_word_on_one_counts(tmp_path: Path) -> None:
    paint(tmp_path / "shapes", each=4)
    with ranks.started() as several:
        several(f"{__name__}:whole_run", 2, tmp_path)
        for first in ("", "it is grey"):
            told = several(f"{__name__}:decided", 2, tmp_path / f"decided-{bool(first)}", first=first)
            assert told == [[first, bool(first)]] * 2
    run = Run(tmp_path / "run")
    assert (run.samples / "vae-00000006.png").is_file()
    assert run.load("cpu").sample(num_images=1, num_steps=2)[0].size == (32, 32)
