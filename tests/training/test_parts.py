"""The parts of training, each against its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calotype.core.errors import CorruptFileError, UserError
from calotype.training.augment import AugmentConfig, augment
from calotype.training.journal import Budget, Journal, Segment
from calotype.training.metrics import Metrics, last_measures
from calotype.training.pace import Pace


def test_augment_is_a_function_of_seed_step_and_sample() -> None:
    torch.manual_seed(0)
    images, ids = torch.rand(8, 3, 16, 16), torch.arange(8)
    config = AugmentConfig(flip=True, shift=2, permute=0.5)
    whole = augment(images, config, seed=1, step=5, ids=ids)
    torch.testing.assert_close(augment(images[3:5], config, 1, 5, ids[3:5]), whole[3:5])
    assert not torch.equal(augment(images, config, 1, 6, ids), whole)
    assert whole.shape == images.shape
    still = AugmentConfig(flip=False, shift=0, permute=0)
    assert torch.equal(augment(images, still, 1, 5, ids), images)


def test_augment_moves_and_permutes_but_invents_nothing() -> None:
    images = torch.rand(64, 3, 6, 6)
    permuted = augment(images, AugmentConfig(flip=False, shift=0, permute=1.0), 0, 0, torch.arange(64))
    torch.testing.assert_close(permuted.sort(dim=1).values, images.sort(dim=1).values)
    assert (permuted != images).flatten(1).any(1).float().mean() > 0.6
    flipped = augment(images, AugmentConfig(flip=True, shift=0, permute=0), 0, 0, torch.arange(64))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0.2 < float(same.float().mean()) < 0.8


def test_journal_requests_continue_grow_or_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(minutes=10))
    journal.request(Budget(minutes=10))
    journal.add("segment", stage="vae", start=0, seconds=60.0)
    assert journal.segments("vae") == [Segment(0, 60.0, None)]
    journal.add("decided", stage="vae", end=400)
    with pytest.raises(UserError, match="already given --minutes 10"):
        journal.request(Budget(minutes=5))
    with pytest.raises(UserError, match="not --steps 9"):
        journal.request(Budget(steps=9))
    journal.request(Budget(minutes=12.5))
    again = Journal(tmp_path / "journal.jsonl")
    assert again.requests() == [Budget(minutes=10), Budget(minutes=12.5)]
    assert again.segments("vae") == [Segment(0, 60.0, 400)]


def test_metrics_forget_what_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, "vae")
    for step in (1, 2, 3, 4):
        metrics.add({"loss": float(step)})
        if step % 2 == 0:
            metrics.flush(step, lr=0.1)
    Metrics(path, "denoiser").write(9, held_out_error=0.5)
    with open(path, "a") as file:
        file.write('{"stage": "vae", "st')  # a kill in mid-write
    again = Metrics(path, "vae")
    again.rewind(3, {"sums": {"loss": 3.0}, "counts": {"loss": 1}})
    again.add({"loss": 4.0})
    assert again.flush(4, lr=0.1) == {"loss": 3.5}
    assert last_measures(path) == {"held_out_error": 0.5}
    assert path.read_text().count("\n") == 3


def test_a_term_that_joins_late_is_averaged_over_its_own_steps(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "vae")
    for values in ({"loss": 1.0}, {"loss": 2.0, "adversarial": 8.0}, {"loss": 3.0, "adversarial": 6.0}):
        metrics.add(values)
    assert metrics.flush(3) == {"loss": 2.0, "adversarial": 7.0}
    assert metrics.means() == {}


def test_pace_tells_once_when_half_the_speed_is_gone() -> None:
    pace = Pace(0, 0.0)
    assert pace.slowed_to(100, 10.0) is None
    assert pace.slowed_to(101, 15.0) is None
    assert pace.slowed_to(160, 21.0) is None
    assert pace.slowed_to(190, 31.0) == pytest.approx(0.3)
    assert pace.slowed_to(200, 41.0) is None


@pytest.mark.parametrize("line", ["{", "null", "[]", '{"event": "rolled_back"}', '{"event": ["run"]}', '{"step": 1}'])
def test_a_journal_that_was_altered_is_one_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "journal.jsonl").write_text(f"{line}\n")
    with pytest.raises(CorruptFileError, match="was altered: restore it"):
        Journal(tmp_path / "journal.jsonl")
