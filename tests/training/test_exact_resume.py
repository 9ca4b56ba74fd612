"""A run stopped at any instant ends bit-identical to an undisturbed one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calotype.core.files import read_lines
from calotype.core.progress import Silent
from calotype.core.random import normal
from calotype.training.checkpoint import Retention, newest_checkpoint, read_checkpoint, save_checkpoint
from calotype.training.journal import Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.objective import Losses
from calotype.training.optimizers import OptimizerConfig
from calotype.training.settings import LoopConfig

STEPS = 12


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of checkpoints are written here; that they reach the platter is another test's business."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Stop(Exception):
    """A process that ends between two steps without saying goodbye."""


class Toy:
    """A regression with a convolution, so that both optimisers have work; it may die before a given step."""

    stage = "toy"
    num_samples = 10
    auxiliary = None
    best = (("kernel_distance", "min"), ("held_out_error", "min"))
    steady, floor = "loss", 0.0

    def __init__(self, dies_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 1))
        self.dies_at = dies_at

    def losses(self, step: int, ids: Tensor) -> Losses:
        if step == self.dies_at:
            raise Stop
        pictures = normal(1, "pictures", 0, ids, (2, 4, 4)) + 0.1 * normal(1, "noise", step, ids, (2, 4, 4))
        wanted = normal(1, "targets", 0, ids, (1,))
        each = (self.network(pictures) - wanted).square().mean(1)
        return Losses({"loss": each.mean()}, each.detach())

    def observe(self, measures: dict[str, float]) -> bool:
        return False

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        pass

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"held_out_error": float(sum(p.abs().sum() for p in network.parameters()))}


def first_weights(network: nn.Module) -> dict[str, float]:
    """What a network draws, judged by its first weights."""
    return {"kernel_distance": float(next(network.parameters()).abs().sum())}


def run_toy(
    folder: Path,
    optimizer: str = "muon",
    dies_at: int | None = None,
    ends: tuple[int, ...] = (STEPS,),
    checkpoint_seconds: float = 0,
    make: Callable[[int | None], Any] = Toy,
    validate_every: int = 5,
    score_every: int | None = None,
    score: Callable[[nn.Module], dict[str, float]] = first_weights,
    keep: int = 3,
) -> None:
    """One process: train the stage in `folder` up to its last segment, or die on the way."""
    config = LoopConfig(
        batch_size=4,
        optimizer=OptimizerConfig(name=optimizer, warmup=3),
        log_every=5,
        validate_every=validate_every,
        score_every=score_every,
        keep=keep,
        checkpoint_seconds=checkpoint_seconds,
    )
    journal = Journal(folder / "journal.jsonl")
    for i, end in enumerate(ends):
        if i >= len(journal.segments("toy")):
            journal.add("segment", stage="toy", start=ends[i - 1] if i else 0, end=end)
    metrics = Metrics(folder / "metrics.jsonl", "toy")
    stage = StageRun(folder / "toy", journal, metrics, 3, Silent(), lambda *_: None, score=score)
    train_stage(make(dies_at), config, stage)


def final_state(folder: Path) -> dict[str, bytes]:
    """Every byte that must agree: weights, averages, optimiser; metrics without their clock times."""
    checkpoint = newest_checkpoint(folder / "toy", Silent())
    assert checkpoint is not None
    found = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k not in ("time", "rate")} for line in lines]
    found["metrics"] = json.dumps(records).encode()
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_death_before_every_step_changes_nothing(tmp_path: Path, optimizer: str) -> None:
    run_toy(tmp_path / "whole", optimizer)
    expected = final_state(tmp_path / "whole")
    assert set(expected) == {"network.safetensors", "ema.safetensors", "optimizer.safetensors", "metrics"}
    for step in range(STEPS):
        folder = tmp_path / f"dies-{step}"
        with pytest.raises(Stop):
            run_toy(folder, optimizer, dies_at=step)
        run_toy(folder, optimizer)
        assert final_state(folder) == expected, f"differs after a stop before step {step}"


def test_death_before_every_step_of_a_scored_run_changes_nothing(tmp_path: Path) -> None:
    run_toy(tmp_path / "whole", score_every=4, ends=(10,))
    expected = final_state(tmp_path / "whole")
    records = list(read_lines(tmp_path / "whole" / "metrics.jsonl"))
    assert [r["step"] for r in records if "kernel_distance" in r] == [4, 8, 10]
    assert [r["step"] for r in records if "held_out_error" in r] == [4, 5, 8, 10]
    for step in range(10):
        folder = tmp_path / f"dies-{step}"
        with pytest.raises(Stop):
            run_toy(folder, dies_at=step, score_every=4, ends=(10,))
        run_toy(folder, score_every=4, ends=(10,))
        assert final_state(folder) == expected, f"differs after a stop before step {step}"


def test_the_best_by_each_measure_is_kept_and_a_run_of_an_older_calotype_goes_on(tmp_path: Path) -> None:
    class Valley(Toy):
        """Errors are lowest at step 2."""

        def validate(self, network: nn.Module) -> dict[str, float]:
            return {"held_out_error": next(errors)}

    def distance(network: nn.Module) -> dict[str, float]:
        return {"kernel_distance": next(distances)}

    errors, distances = iter([3.0, 1.0, 2.0, 3.0, 4.0, 5.0]), iter([5.0, 4.0, 3.0, 2.0, 3.0, 4.0])
    how = {"make": lambda _: Valley(), "checkpoint_seconds": 1e9, "validate_every": 1, "score_every": 1, "keep": 1}
    run_toy(tmp_path, ends=(6,), score=distance, **how)
    kept = sorted((tmp_path / "toy").glob("step-*"))
    assert [folder.name for folder in kept] == [f"step-{step:08d}" for step in (2, 4, 6)]
    best = read_checkpoint(kept[-1]).state["best"]
    assert best == {"kernel_distance": 2.0, "held_out_error": 1.0}
    older = read_checkpoint(kept[-1])
    older.state["best"] = 1.0  # of the one measure there was
    save_checkpoint(tmp_path / "toy", older, Retention(1, Toy.best))
    errors, distances = iter([0.5, 0.7]), iter([9.0, 9.0])
    run_toy(tmp_path, ends=(6, 8), score=distance, **how)
    assert {folder.name for folder in (tmp_path / "toy").glob("step-*")} == {f"step-{step:08d}" for step in (4, 7, 8)}


def test_dying_at_every_step_of_one_run_changes_nothing(tmp_path: Path) -> None:
    run_toy(tmp_path / "whole")
    for step in range(STEPS):
        with pytest.raises(Stop):
            run_toy(tmp_path / "often", dies_at=step)
    run_toy(tmp_path / "often")
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")


def test_a_checkpoint_that_falls_due_on_the_last_step_skips_no_measure(tmp_path: Path) -> None:
    run_toy(tmp_path / "often")  # a checkpoint after every step, the last one included
    run_toy(tmp_path / "seldom", checkpoint_seconds=1e9)
    assert final_state(tmp_path / "often") == final_state(tmp_path / "seldom")
    last = json.loads((tmp_path / "seldom" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == STEPS
    assert "held_out_error" in last


def test_training_on_is_exact_too(tmp_path: Path) -> None:
    run_toy(tmp_path / "whole")
    run_toy(tmp_path / "whole", ends=(STEPS, 20))
    run_toy(tmp_path / "stopped")
    with pytest.raises(Stop):
        run_toy(tmp_path / "stopped", dies_at=16, ends=(STEPS, 20))
    run_toy(tmp_path / "stopped", ends=(STEPS, 20))
    assert final_state(tmp_path / "stopped") == final_state(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    run_toy(tmp_path / "whole")
    with pytest.raises(Stop):
        run_toy(tmp_path / "hurt", dies_at=8)
    newest = newest_checkpoint(tmp_path / "hurt" / "toy", Silent())
    assert newest is not None
    assert newest.name == "step-00000008"
    weights = newest / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    said: list[str] = []

    class Loud(Silent):
        def warn(self, message: str) -> None:
            said.append(message)

    older = newest_checkpoint(tmp_path / "hurt" / "toy", Loud())
    assert older is not None
    assert older.name == "step-00000007"
    assert len(said) == 1
    assert "step-00000008" in said[0]
    run_toy(tmp_path / "hurt")
    assert final_state(tmp_path / "hurt") == final_state(tmp_path / "whole")


def test_death_between_the_measures_and_the_checkpoint_of_what_came_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(tmp_path / "whole", ends=(0,))  # as a VAE that was named: no step at all
    with monkeypatch.context() as patch:
        patch.setattr("calotype.training.loop.save_checkpoint", _dies)
        with pytest.raises(Stop):
            run_toy(tmp_path / "often", ends=(0,))
    run_toy(tmp_path / "often", ends=(0,))
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")


def _dies(*_: Any) -> None:
    raise Stop


def test_a_measure_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    class Unsteady(Toy):
        def validate(self, network: nn.Module) -> dict[str, float]:
            self.seen = getattr(self, "seen", 0) + 1
            return {"held_out_error": [float("nan"), 2.0, 1.0, 3.0][self.seen - 1]}

    run_toy(tmp_path, make=lambda _: Unsteady(), checkpoint_seconds=1e9, validate_every=3)  # at 3, 6, 9 and 12
    assert [path.name for path in sorted((tmp_path / "toy").glob("step-*"))] == [
        f"step-{step:08d}" for step in (6, 9, 12)
    ]
