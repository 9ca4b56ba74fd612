"""What the ranks of test_ranks.py do: a small real stage, and accidents on the way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.core.progress import Silent
from calotype.core.random import normal
from calotype.latents import ConvVAE, LatentSet, LatentStatistics, VAEConfig
from calotype.network import Condition, UNet, UNetConfig
from calotype.process import VariancePreserving
from calotype.training.denoiser_objective import DenoiserLossConfig, DenoiserObjective
from calotype.training.journal import Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.objective import Losses, Objective
from calotype.training.optimizers import OptimizerConfig
from calotype.training.settings import LoopConfig
from calotype.training.vae_objective import VAELossConfig, VAEObjective

CPU = torch.device("cpu")
BATCH = 4
SAMPLES = 22  # so that a batch straddles two epochs
HELD_OUT = 7  # not a multiple of any number of ranks
NETWORK = UNetConfig(channels=(8, 16), emb_channels=16, condition_channels=16, num_classes=4, map_channels=4)


def denoiser() -> DenoiserObjective:
    """On fixed latents of four classes."""
    torch.manual_seed(0)
    ids = torch.arange(SAMPLES + HELD_OUT)
    mean = (normal(0, "classes", 0, ids % 4, (4, 1, 1)) + 0.3 * normal(0, "latents", 0, ids, (4, 8, 8)))[None]
    latents = LatentSet.from_tensors(
        mean, torch.full_like(mean, 0.01), LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=2.8)
    )
    labels = Condition(torch.zeros(len(ids), dtype=torch.bool), label=ids % 4)
    network = UNet(NETWORK.model_copy(update={"dropout": 0.1}))
    process, train, held_out = VariancePreserving.cosine(), ids[:SAMPLES], ids[SAMPLES:]
    loss = DenoiserLossConfig()
    return DenoiserObjective(network, process, loss, latents, lambda i: labels[i.cpu()], train, held_out, 7, CPU)


def vae() -> VAEObjective:
    """On fixed pictures."""
    torch.manual_seed(0)
    ids = torch.arange(SAMPLES + HELD_OUT)
    images = normal(0, "pictures", 0, ids, (3, 16, 16)).cumsum(-1).tanh()
    network = ConvVAE(VAEConfig(channels=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
    return VAEObjective(network, VAELossConfig(), lambda i: images[i], ids[:SAMPLES], ids[SAMPLES:], 7, CPU)


SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}


class Spy:
    """An objective that notes what this process is given, and may have an accident at a step, on one rank or all."""

    def __init__(self, objective: Objective, accident: str = "", at: int = -1, on: int = 1) -> None:
        self._objective, self.accident, self.at, self.on = objective, accident, at, on
        self.given: dict[int, list[int]] = {}
        self.saves = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def losses(self, step: int, ids: Tensor) -> Losses:
        self.given.setdefault(step, []).extend(ids.tolist())
        if step == self.at and self._is_the_one() and self.accident in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.accident])
        losses = self._objective.losses(step, ids)
        if step == self.at and (self.accident == "all nan" or (self.accident == "nan" and self._is_the_one())):
            broken = torch.zeros_like(losses.each)
            broken[: None if self.accident == "all nan" else 1] = torch.nan
            losses.terms["loss"] = losses.terms["loss"] + broken.sum()
            losses.each = losses.each + broken
            self.at = -1  # it does not happen twice
        return losses

    def validate(self, network: nn.Module) -> dict[str, float]:
        if self.accident == "kill in validation" and self._is_the_one():
            os.kill(os.getpid(), signal.SIGKILL)
        return self._objective.validate(network)

    def state(self) -> dict[str, Any]:
        """Asked for on the way to a checkpoint, after the first one, of the untrained network."""
        self.saves += 1
        if self.accident == "kill in save" and self._is_the_one() and self.saves == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._objective.state()

    def _is_the_one(self) -> bool:
        return distributed.rank() == self.on


class Told(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say


def train(
    folder: Path,
    kind: str = "denoiser",
    steps: int = 50,
    optimizer: str = "adamw",
    accident: str = "",
    at: int = -1,
    on: int = 1,
    **settings: Any,
) -> dict[str, Any]:
    """Train a stage as the pipeline does; what this rank saw of it."""
    fixed = {"batch_size": BATCH, "log_every": 1, "validate_every": 10, "checkpoint_seconds": 1e9}
    config = LoopConfig.model_validate({**fixed, "optimizer": OptimizerConfig(name=optimizer, warmup=5), **settings})
    reporter, stopped = Told(), False

    def preview(step: int, averaged: nn.Module, live: nn.Module) -> None:
        if accident == "slow preview" and distributed.rank() == 0:
            time.sleep(1)

    def score(averaged: nn.Module) -> dict[str, float]:
        """All have a share in it, as in the pipeline's."""
        if accident == "kill in score" and distributed.rank() == on:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"kernel_distance": sum(objective.validate(averaged).values())}

    with distributed.joined(CPU):
        objective = Spy(vae() if kind == "vae" else denoiser(), accident, at, on)
        journal = Journal(folder / "journal.jsonl", together=True)
        if not journal.segments(objective.stage):
            journal.add("segment", stage=objective.stage, start=0, end=steps)
        metrics = Metrics(folder / "metrics.jsonl", objective.stage, writes=distributed.rank() == 0)
        called = "picture {}".format
        stage = StageRun(folder / objective.stage, journal, metrics, 3, reporter, preview, called, score)
        try:
            train_stage(objective, config, stage)
        except KeyboardInterrupt:
            stopped = True
    return {"given": objective.given, "told": reporter.lines, "stopped": stopped}
