"""Both stages' real objectives, stopped at every step of two epochs: the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.latents import ConvVAE, LatentSet, LatentStatistics, VAEConfig
from calotype.network import Condition, UNet, UNetConfig
from calotype.process import VariancePreserving
from calotype.training.denoiser_objective import DenoiserLossConfig, DenoiserObjective
from calotype.training.objective import Losses
from calotype.training.vae_objective import VAELossConfig, VAEObjective
from tests.training.test_exact_resume import final_state, no_fsync, run_toy

__all__ = ["no_fsync"]  # for every test here too

CPU = torch.device("cpu")
PICTURES = 12
EPOCH = PICTURES // 4  # steps, of run_toy's batches
IDS = torch.arange(PICTURES)
Objective = VAEObjective | DenoiserObjective


def vae_objective() -> VAEObjective:
    torch.manual_seed(0)
    images = torch.rand(PICTURES, 3, 16, 16) * 2 - 1
    vae = ConvVAE(VAEConfig(channels=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
    return VAEObjective(vae, VAELossConfig(), lambda ids: images[ids], IDS, IDS[:2], 7, CPU)


def denoiser_objective() -> DenoiserObjective:
    torch.manual_seed(0)
    mean = torch.randn(2, PICTURES, 4, 4, 4)
    statistics = LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=2.8)
    latents = LatentSet.from_tensors(mean, torch.full_like(mean, 0.01), statistics)
    network = UNet(UNetConfig(channels=(16, 32), emb_channels=16, condition_channels=16, num_classes=4))
    labels = Condition(torch.zeros(PICTURES, dtype=torch.bool), label=IDS % 4)
    loss, process = DenoiserLossConfig(flip=True, condition_dropout=0.3), VariancePreserving.cosine()
    return DenoiserObjective(network, process, loss, latents, lambda ids: labels[ids], IDS, IDS[:4], 7, CPU)


def interrupted(objective: Objective, at: int | None) -> Objective:
    """The objective, in a process that gets SIGTERM in the midst of step `at`."""
    compute = objective.losses

    def losses(step: int, ids: Tensor) -> Losses:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(step, ids)

    objective.losses = losses  # type: ignore[method-assign]
    objective.stage = "toy"  # as run_toy's journal has it
    return objective


def train(folder: Path, make: Callable[[], Objective], stops: Sequence[int]) -> dict[str, bytes]:
    """Two epochs in one run, interrupted at each of `stops` and continued; its final state."""
    for stop in (*stops, None):
        asked = nullcontext() if stop is None else pytest.raises(KeyboardInterrupt)
        with asked:
            run_toy(
                folder,
                "adamw",
                ends=(2 * EPOCH,),
                checkpoint_seconds=1e9,  # who is asked to stop saves by itself
                make=lambda _, stop=stop: interrupted(make(), stop),
                validate_every=2,
            )
    return final_state(folder)


@pytest.mark.parametrize("make", [vae_objective, denoiser_objective])
def test_a_stop_at_every_step_of_two_epochs_changes_nothing(tmp_path: Path, make) -> None:
    expected = train(tmp_path / "whole", make, [])
    assert set(expected) == {"network.safetensors", "ema.safetensors", "optimizer.safetensors", "metrics"}
    every, pairs = range(2 * EPOCH), combinations(range(EPOCH), 2)  # at each step, twice inside one epoch, at all steps
    for stops in (*((step,) for step in every), *pairs, every):
        folder = tmp_path / "-".join(map(str, stops))
        assert train(folder, make, stops) == expected, f"differs after stops at {list(stops)}"
