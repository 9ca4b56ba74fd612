"""Segments given in seconds, on a clock that moves by a tenth of a second a step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor

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


def train(folder: Path, segments: int, dies_at: int | None = None) -> list[int]:
    """One process, which takes up to so many segments; the ends of all that there are."""
    journal = Journal(folder / "journal.jsonl")
    for _ in range(len(journal.segments("toy")), segments):
        ends = [segment.end for segment in journal.segments("toy")]
        journal.add("segment", stage="toy", start=ends[-1] if ends else 0, seconds=SECONDS)
    config = LoopConfig(batch_size=4, optimizer=OptimizerConfig(warmup=3), validate_every=1000, checkpoint_seconds=1.0)
    metrics = Metrics(folder / "metrics.jsonl", "toy")
    train_stage(Timed(dies_at), config, StageRun(folder / "toy", journal, metrics, 3, Silent(), lambda *_: None))
    return [segment.end or 0 for segment in journal.segments("toy")]


def test_another_process_gives_a_later_segment_its_whole_time(tmp_path: Path) -> None:
    (first,) = train(tmp_path, 1)
    assert first == pytest.approx(60, abs=2)
    *_, second = train(tmp_path, 2)
    assert second - first == pytest.approx(60, abs=2)
    *_, third = train(tmp_path, 3)
    assert third - second == pytest.approx(60, abs=2)


def test_so_it_does_in_a_run_of_an_older_calotype(tmp_path: Path) -> None:
    (first,) = train(tmp_path, 1)
    newest = newest_checkpoint(tmp_path / "toy", Silent())
    assert newest is not None
    checkpoint = read_checkpoint(newest)
    del checkpoint.state["segment_began"]
    save_checkpoint(tmp_path / "toy", checkpoint, Retention())
    *_, second = train(tmp_path, 2)
    assert second - first == pytest.approx(60, abs=2)
