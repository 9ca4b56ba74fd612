"""What the ranks of test_ranks.py do: a small real stage, and accidents on the way."""

from __future__ import annotations

import json
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
    mean = normal(0, "latents", 0, ids, (4, 8, 8))[None]
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


class Spy:
    """An objective that notes what this process is given, and may have an accident at a step."""

    def __init__(self, objective: Objective, accident: str = "", at: int = -1, on: int = 1) -> None:
        self._objective, self.accident, self.at, self.on = objective, accident, at, on
        self.given: dict[int, list[int]] = {}
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def losses(self, step: int, ids: Tensor) -> Losses:
        self.given.setdefault(step, []).extend(ids.tolist())
        self.sizes.append(len(ids))
        if step == self.at and distributed.rank() == self.on:
            if self.accident == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.accident == "terminate":
                os.kill(os.getpid(), signal.SIGTERM)
        losses = self._objective.losses(step, ids)
        if step == self.at and self.accident == "nan" and distributed.rank() == self.on:
            broken = torch.zeros_like(losses.each)
            broken[0] = torch.nan
            losses.terms["loss"] = losses.terms["loss"] + broken.sum()
            losses.each = losses.each + broken
        return losses

    def validate(self, network: nn.Module) -> dict[str, float]:
        if self.accident == "kill in validation" and distributed.rank() == self.on:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._objective.validate(network)


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

    with distributed.joined(CPU):
        objective = Spy(vae() if kind == "vae" else denoiser(), accident, at, on)
        journal = Journal(folder / "journal.jsonl")
        if not journal.segments(objective.stage):
            journal.add("segment", stage=objective.stage, start=0, end=steps)
        metrics = Metrics(folder / "metrics.jsonl", objective.stage, writes=distributed.rank() == 0)
        stage = StageRun(folder / objective.stage, journal, metrics, 3, reporter, preview, lambda i: f"picture {i}")
        try:
            train_stage(objective, config, stage)
        except KeyboardInterrupt:
            stopped = True
    return {"given": objective.given, "sizes": objective.sizes, "told": reporter.lines, "stopped": stopped}
