"""Both stages' real objectives, stopped at every step of two epochs: the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
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
from tests.training.test_exact_resume import Stop, final_state, no_fsync, run_toy

__all__ = ["no_fsync"]  # for every test here too

CPU = torch.device("cpu")
PICTURES = 16
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


def stopped(objective: Objective, at: int | None, how: str) -> Objective:
    """The objective, in a process that gets SIGTERM in the midst of step `at`, or is gone before it."""
    compute = objective.losses

    def losses(step: int, ids: Tensor) -> Losses:
        if step == at:
            if how == "dies":
                raise Stop
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(step, ids)

    objective.losses = losses  # type: ignore[method-assign]
    objective.stage = "toy"  # as run_toy's journal has it
    return objective


def train(folder: Path, make: Callable[[], Objective], stops: Sequence[int], how: str = "interrupted") -> None:
    """Two epochs in one run, stopped at each of `stops` and continued."""
    for stop in stops:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else Stop):
            run(folder, make, stop, how)
    run(folder, make, None, how)


def run(folder: Path, make: Callable[[], Objective], stop: int | None, how: str) -> None:
    run_toy(
        folder,
        "adamw",
        ends=(2 * EPOCH,),
        checkpoint_seconds=1e9 if how == "interrupted" else 0,  # who is asked to stop saves by itself
        make=lambda _: stopped(make(), stop, how),
        validate_every=3,
    )


@pytest.mark.parametrize("how", ["interrupted", "dies"])
@pytest.mark.parametrize("make", [vae_objective, denoiser_objective])
def test_a_stop_at_every_step_of_two_epochs_changes_nothing(tmp_path: Path, make, how: str) -> None:
    train(tmp_path / "whole", make, [])
    expected = final_state(tmp_path / "whole")
    assert set(expected) == {"network.safetensors", "ema.safetensors", "optimizer.safetensors", "metrics"}
    for step in range(2 * EPOCH):
        train(tmp_path / f"{step}", make, [step], how)
        assert final_state(tmp_path / f"{step}") == expected, f"differs after a stop at step {step}"


@pytest.mark.parametrize("make", [vae_objective, denoiser_objective])
def test_two_stops_in_one_epoch_change_nothing(tmp_path: Path, make) -> None:
    train(tmp_path / "whole", make, [])
    pairs = [(first, second) for first in range(EPOCH) for second in range(first + 1, EPOCH)]
    for first, second in pairs:
        folder = tmp_path / f"{first}-{second}"
        train(folder, make, [first, second])
        assert final_state(folder) == final_state(tmp_path / "whole"), f"differs after stops at {first} and {second}"


@pytest.mark.parametrize("make", [vae_objective, denoiser_objective])
def test_one_run_stopped_at_every_step_changes_nothing(tmp_path: Path, make) -> None:
    train(tmp_path / "whole", make, [])
    train(tmp_path / "often", make, range(2 * EPOCH))
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")
