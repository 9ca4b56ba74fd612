"""A sample that gives no number costs its step, weights that diverge cost the way since the last checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.progress import Silent
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.guard import IN_A_ROW, WINDOW, Guard, Verdict
from calotype.training.journal import Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.objective import Losses
from calotype.training.optimizers import OptimizerConfig
from calotype.training.settings import LoopConfig
from tests.training.test_exact_resume import Stop, Toy, final_state, no_fsync
from tests.training.test_objectives import denoiser_objective

__all__ = ["no_fsync"]


class Loud(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


def run(folder: Path, objective: Any, steps: int, *, lr: float = 2e-3, batch_size: int = 4, **how: Any) -> Loud:
    """Train `objective` to its end; what was said."""
    config = LoopConfig(
        batch_size=batch_size, optimizer=OptimizerConfig(lr=lr, warmup=1), log_every=5, validate_every=5, **how
    )
    journal, loud = Journal(folder / "journal.jsonl"), Loud()
    if not journal.events:
        journal.add("segment", stage=objective.stage, start=0, end=steps)
    metrics = Metrics(folder / "metrics.jsonl", objective.stage)
    stage = StageRun(folder / "toy", journal, metrics, 3, loud, lambda *_: None, named=lambda i: f"picture-{i}.png")
    train_stage(objective, config, stage)
    return loud


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Spoilt(Toy):
    """One sample gives no number whenever it is seen."""

    bad = 6

    def losses(self, step: int, ids: Tensor) -> Losses:
        losses = super().losses(step, ids)
        each = torch.where(ids == self.bad, torch.nan, losses.each)
        spoilt = torch.where((ids == self.bad).any(), torch.nan, 1.0)
        return Losses({"loss": losses.terms["loss"] * spoilt}, each)


def test_a_bad_sample_costs_its_steps_and_is_named(tmp_path: Path) -> None:
    said = run(tmp_path, Spoilt(), 20).said
    skipped = [record for record in records(tmp_path) if "skipped" in record]
    assert len(skipped) == len(said) == 8  # 80 samples are eight times each of ten
    assert all(record["skipped"] == [6] for record in skipped)
    assert f"toy, step {skipped[0]['step']}: sample 6 (picture-6.png) is not finite; step skipped (1 so far)" in said[0]
    losses = [record["loss"] for record in records(tmp_path) if "loss" in record]
    assert all(map(torch.isfinite, torch.tensor(losses)))


def test_a_stop_beside_a_skipped_step_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "whole", Spoilt(), 12, checkpoint_seconds=0)
    for step in range(12):
        with pytest.raises(Stop):
            run(tmp_path / "often", Spoilt(dies_at=step), 12, checkpoint_seconds=0)
    run(tmp_path / "often", Spoilt(), 12, checkpoint_seconds=0)
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")


def test_a_latent_that_is_no_number_is_named_with_its_noise(tmp_path: Path) -> None:
    objective = denoiser_objective()
    values = objective.latents.rows.values
    values[int(objective.train_ids[2])] = torch.nan
    said = run(tmp_path, objective, 12, batch_size=3).said
    assert any("sample 2 (picture-2.png), noise bin " in line and " of 8 is not finite" in line for line in said)
    assert all(p.isfinite().all() for p in objective.network.parameters())


def test_a_rate_that_explodes_is_halved_until_it_does_not(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Toy(), 60, lr=12.0)
    assert 1 <= len(whole.said) <= 6
    assert all("diverged at step" in line and "at a quarter of the rate from there" in line for line in whole.said)
    events = Journal(tmp_path / "whole" / "journal.jsonl").events
    assert [event["to"] for event in events if event["event"] == "rolled_back"] == [0] * len(whole.said)
    losses = [record["loss"] for record in records(tmp_path / "whole") if "loss" in record]
    assert losses[-1] < 10 * losses[0]
    replayed = tmp_path / "replayed"
    replayed.mkdir()
    (replayed / "journal.jsonl").write_bytes((tmp_path / "whole" / "journal.jsonl").read_bytes())
    assert run(replayed, Toy(), 60, lr=12.0).said == []
    assert final_state(replayed) == final_state(tmp_path / "whole")


def test_a_rate_beyond_all_bounds_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diverges again and again, at last at step \d+.*toy\.training\.optimizer\.lr"):
        run(tmp_path, Toy(), 200, lr=1e6)


class Broken(Toy):
    """From some step on nothing gives a number, as if the weights were spoilt."""

    def losses(self, step: int, ids: Tensor) -> Losses:
        losses = super().losses(step, ids)
        return replace(losses, terms={"loss": losses.terms["loss"] * torch.nan}, each=losses.each * torch.nan)


def test_where_nothing_is_a_number_training_goes_back_and_then_gives_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diverges again and again, at last at step 1, where its loss is not finite"):
        run(tmp_path, Broken(), 20)


def test_spoilt_weights_are_never_saved() -> None:
    guard = Guard()
    assert guard.judge(1.0, finite=True, all_samples=False) is Verdict.FINE
    for _ in range(WINDOW - 1):
        assert guard.calm
        assert guard.judge(1.0, finite=True, all_samples=False) is Verdict.FINE
    verdicts = []
    while Verdict.ROLL_BACK not in verdicts:
        verdicts.append(guard.judge(11.0, finite=True, all_samples=False))
    assert len(verdicts) == WINDOW // 2 + 1
    assert not guard.calm
    assert Guard.of(json.loads(json.dumps(guard.state()))) == guard


def test_one_bad_batch_is_no_divergence_and_five_running_are() -> None:
    guard = Guard()
    for loss in (1.0, *[1.0] * WINDOW, 1e6, *[1.0] * WINDOW):
        assert guard.judge(loss, finite=True, all_samples=False) is Verdict.FINE
    verdicts = [guard.judge(0.0, finite=False, all_samples=False) for _ in range(IN_A_ROW)]
    assert verdicts == [Verdict.SKIP] * (IN_A_ROW - 1) + [Verdict.ROLL_BACK]
    assert Guard().judge(0.0, finite=False, all_samples=True) is Verdict.ROLL_BACK


@torch.no_grad()
def test_what_is_watched_does_not_jump_with_the_weights_of_its_samples() -> None:
    objective = denoiser_objective("x0")
    objective.config = objective.config.model_copy(update={"weighting": "elbo"})
    terms = [objective.losses(step, objective.train_ids).terms for step in range(40)]
    losses, watched = ([float(term[name]) for term in terms] for name in ("loss", objective.steady))
    assert max(losses) > 100 * min(losses)
    assert max(watched) < 3 * min(watched)


def test_what_was_trained_before_may_begin_with_an_easy_batch() -> None:
    guard, loose = Guard(), Guard()
    for loss in (0.01, *[0.2] * WINDOW):
        verdict = guard.judge(loss, finite=True, all_samples=False, floor=DenoiserObjective.floor)
        without = loose.judge(loss, finite=True, all_samples=False)
    assert verdict is Verdict.FINE
    assert without is Verdict.ROLL_BACK
