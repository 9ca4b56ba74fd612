"""The discriminator resumes to the bit as well: its weights, its optimiser, and the decision that it takes part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.core.progress import Silent
from calotype.core.random import uniform
from calotype.core.tensors import load_tensors
from calotype.latents import ConvVAE, VAEConfig
from calotype.training.checkpoint import newest_checkpoint
from calotype.training.objective import Losses
from calotype.training.vae_objective import VAELossConfig, VAEObjective
from tests.training.test_exact_resume import Stop, final_state, no_fsync, run_toy

__all__ = ["no_fsync"]  # a fixture: checkpoints of this file need not reach the platter either

STEPS = 10


class Adversarial(VAEObjective):
    """A tiny VAE whose discriminator joins at step 4, the second validation: no progress is ever enough."""

    stage = "toy"

    def __init__(self, dies_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.dies_at = dies_at
        loss = VAELossConfig(adversarial_weight=0.5, adversarial_plateau=0.99, kl_warmup=6, multiscale_weight=0.5)
        ids, vae = torch.arange(10), ConvVAE(VAEConfig(channels=(8,)))
        images = uniform(1, "pictures", 0, ids, (3, 16, 16)) * 2 - 1
        super().__init__(vae, loss, lambda ids: images[ids], ids[:8], ids[8:], 3, torch.device("cpu"))

    def losses(self, step: int, ids: Tensor) -> Losses:
        if step == self.dies_at:
            raise Stop
        return super().losses(step, ids)


def train(folder: Path, dies_at: int | None = None) -> None:
    run_toy(folder, dies_at=dies_at, ends=(STEPS,), make=Adversarial, validate_every=2)


def test_death_before_every_step_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    expected = final_state(tmp_path / "whole")
    assert "auxiliary.safetensors" in expected
    terms = [record for line in expected["metrics"].splitlines() for record in json.loads(line) if "kl" in record]
    assert ["balance" in record for record in terms] == [True, True]
    for step in range(1, STEPS):
        folder = tmp_path / f"dies-{step}"
        with pytest.raises(Stop):
            train(folder, dies_at=step)
        train(folder)
        assert final_state(folder) == expected, f"differs after a stop before step {step}"


def test_it_learns_from_the_moment_it_joins_and_not_before(tmp_path: Path) -> None:
    fresh = Adversarial().auxiliary
    assert fresh is not None
    train(tmp_path)
    weights = {}
    for step in range(STEPS - 2, STEPS + 1):  # the three checkpoints that are kept
        weights[step] = load_tensors(tmp_path / "toy" / f"step-{step:08d}" / "auxiliary.safetensors")
    assert all(not torch.equal(weights[STEPS][name], value) for name, value in weights[STEPS - 1].items())
    with pytest.raises(Stop):
        train(tmp_path / "early", dies_at=4)
    checkpoint = newest_checkpoint(tmp_path / "early" / "toy", Silent())
    assert checkpoint is not None
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["objective"]["adversarial"] is True
    untouched = load_tensors(checkpoint / "auxiliary.safetensors")
    assert all(torch.equal(untouched[name], value) for name, value in fresh.state_dict().items())
