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
from tests.training.test_exact_resume import Stop, Toy, final_state, no_fsync

__all__ = ["no_fsync"]
SECONDS = 6.0  # of a segment: 60 steps


class Timed(Toy):
    """Each step takes a tenth of a second."""

    now = 0.0

    def losses(self, step: int, ids: Tensor) -> Losses:
        Timed.now += 0.1
        return super().losses(step, ids)


class Slowing(Timed):
    """From its second validation on, each step takes three times as long."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__(dies_at)
        self.seen = 0

    def losses(self, step: int, ids: Tensor) -> Losses:
        Timed.now += 0.2 * (self.seen >= 2)
        return super().losses(step, ids)

    def observe(self, measures: dict[str, float]) -> bool:
        self.seen += 1
        return self.seen == 2

    def state(self) -> dict[str, float]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, float]) -> None:
        self.seen = int(state["seen"])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: Timed.now))


def train(
    folder: Path,
    segments: int,
    dies_at: int | None = None,
    score_every: int | None = None,
    make: type[Timed] = Timed,
    validate_every: int = 1000,
) -> list[int]:
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
        validate_every=validate_every,
        score_every=score_every,
        checkpoint_seconds=1.0,
    )
    metrics = Metrics(folder / "metrics.jsonl", "toy")
    stage = StageRun(folder / "toy", journal, metrics, 3, Silent(), lambda *_: None, score=score)
    train_stage(make(dies_at), config, stage)
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


@pytest.mark.parametrize("every", [10, 15])
def test_steps_that_cost_more_from_some_moment_keep_to_the_time(tmp_path: Path, every: int) -> None:
    """So many steps of a tenth of a second and, of the others, what fits into the rest: much of it, or little."""
    began = Timed.now
    (end,) = train(tmp_path, 1, make=Slowing, validate_every=every)
    assert Timed.now - began == pytest.approx(SECONDS, abs=0.6)
    assert end == pytest.approx(2 * every + (SECONDS - 0.2 * every) / 0.3, abs=2)


def test_nothing_joins_once_the_rate_falls(tmp_path: Path) -> None:
    began = Timed.now
    train(tmp_path, 1, make=Slowing, validate_every=25)  # the second validation is too late
    assert Timed.now - began == pytest.approx(SECONDS, abs=0.2)


def test_a_death_after_the_length_is_decided_changes_nothing(tmp_path: Path) -> None:
    """Of a run that was faster at first, in which the last two fifths of the steps begin before that decision."""
    (end,) = train(tmp_path / "whole", 1, make=Slowing, validate_every=10)
    expected = final_state(tmp_path / "whole")
    (segment,) = Journal(tmp_path / "whole" / "journal.jsonl").segments("toy")
    assert segment.decay_from is not None
    assert 0.6 * end < segment.decay_from < end - 2
    for step in range(segment.decay_from + 1, end):
        folder = tmp_path / f"dies-{step}"
        with pytest.raises(Stop):
            train(folder, 1, dies_at=step, make=Slowing, validate_every=10)
        assert train(folder, 1, make=Slowing, validate_every=10) == [end]
        assert final_state(folder) == expected, f"differs after a stop before step {step}"
