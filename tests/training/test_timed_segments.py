"""Segments given in seconds, on a clock that moves by a tenth of a second a step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

from calotype.core.progress import Silent
from calotype.training import loop
from calotype.training.checkpoint import Retention, newest_checkpoint, read_checkpoint, save_checkpoint
from calotype.training.journal import Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.objective import Losses
from calotype.training.optimizers import OptimizerConfig
from calotype.training.settings import LoopConfig
from tests.training.test_exact_resume import Toy, no_fsync

__all__ = ["no_fsync"]
SECONDS = 6.0  # of a segment: 60 steps


class Timed(Toy):
    """Each step takes a tenth of a second."""

    now = 0.0

    def losses(self, step: int, ids: Tensor) -> Losses:
        Timed.now += 0.1
        return super().losses(step, ids)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: Timed.now))


def train(folder: Path, segments: int, dies_at: int | None = None, score_every: int | None = None) -> list[int]:
    """One process, which takes up to so many segments; the ends of all that there are. A score takes half a second."""

    def score(network: nn.Module) -> dict[str, float]:
        Timed.now += 0.5
        return {"kernel_distance": 1.0}

    journal = Journal(folder / "journal.jsonl")
    for _ in range(len(journal.segments("toy")), segments):
        ends = [segment.end for segment in journal.segments("toy")]
        journal.add("segment", stage="toy", start=ends[-1] if ends else 0, seconds=SECONDS)
    config = LoopConfig(
        batch_size=4,
        optimizer=OptimizerConfig(warmup=3),
        validate_every=1000,
        score_every=score_every,
        checkpoint_seconds=1.0,
    )
    metrics = Metrics(folder / "metrics.jsonl", "toy")
    stage = StageRun(folder / "toy", journal, metrics, 3, Silent(), lambda *_: None, score=score)
    train_stage(Timed(dies_at), config, stage)
    return [segment.end or 0 for segment in journal.segments("toy")]


def test_another_process_gives_a_later_segment_its_whole_time(tmp_path: Path) -> None:
    (first,) = train(tmp_path, 1)
    assert first == pytest.approx(60, abs=2)
    *_, second = train(tmp_path, 2)
    assert second - first == pytest.approx(60, abs=2)
    *_, third = train(tmp_path, 3)
    assert third - second == pytest.approx(60, abs=2)


@pytest.mark.parametrize("every", [7, 13, 25])
def test_the_time_that_scores_take_is_counted(tmp_path: Path, every: int) -> None:
    """Those before the length is decided, those after, and the one at the end."""
    began = Timed.now
    (end,) = train(tmp_path, 1, score_every=every)
    assert end < 50
    assert Timed.now - began == pytest.approx(SECONDS, abs=0.5)  # one score more or less


def test_so_it_does_in_a_run_of_an_older_calotype(tmp_path: Path) -> None:
    (first,) = train(tmp_path, 1)
    newest = newest_checkpoint(tmp_path / "toy", Silent())
    assert newest is not None
    checkpoint = read_checkpoint(newest)
    del checkpoint.state["segment_began"]
    save_checkpoint(tmp_path / "toy", checkpoint, Retention())
    *_, second = train(tmp_path, 2)
    assert second - first == pytest.approx(60, abs=2)
