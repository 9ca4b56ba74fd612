"""Windows of means, replayed exactly, by several processes as by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calotype.core.files import read_lines
from calotype.inspection.report.curves import series
from calotype.training.metrics import Metrics, last_measures


def numbers(path: Path) -> list[dict[str, Any]]:
    """The records without their clock."""
    return [{key: value for key, value in record.items() if key != "time"} for record in read_lines(path)]


def test_bins_are_means_over_samples_and_none_where_there_were_none(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "denoiser")
    metrics.add({"loss": 1.0}, {"loss_by_noise": ([0.5, 0.0, 3.0], [1, 0, 2])})
    metrics.add({"loss": 3.0})
    metrics.add({"loss": 5.0}, {"loss_by_noise": ([1.0, 0.0, 0.0], [3, 0, 0])})
    assert metrics.flush(3, lr=0.5) == {"loss": 3.0}
    metrics.add({"loss": 7.0}, {"loss_by_noise": ([0.0, 2.0, 0.0], [0, 1, 1])})
    metrics.flush(4)
    assert numbers(metrics.path) == [
        {"stage": "denoiser", "step": 3, "loss": 3.0, "loss_by_noise": [0.375, None, 1.5], "lr": 0.5},
        {"stage": "denoiser", "step": 4, "loss": 7.0, "loss_by_noise": [None, 2.0, 0.0]},
    ]


def test_bins_of_another_number_are_refused(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "denoiser")
    metrics.add({}, {"loss_by_noise": ([0.5, 1.0], [1, 1])})
    with pytest.raises(ValueError, match="zip"):
        metrics.add({}, {"loss_by_noise": ([0.5], [1])})


def train(metrics: Metrics, first: int, last: int) -> None:
    """Steps with numbers that no binary fraction holds, so that an order of summing shows."""
    for step in range(first, last + 1):
        metrics.add({"loss": 0.1 * step, "kl": 1 / (step + 2)}, {"by_noise": ([0.1 * step, 0.7], [1.0, step % 2])})
        if step % 4 == 0:
            metrics.flush(step, lr=1 / step)


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_window_cut_anywhere_goes_on_exactly(tmp_path: Path, kept: int) -> None:
    """Saved after `kept` steps, trained on for three that are lost, continued from the saved JSON."""
    whole = Metrics(tmp_path / "whole.jsonl", "vae")
    train(whole, 1, 12)
    cut = Metrics(tmp_path / "cut.jsonl", "vae")
    train(cut, 1, kept)
    state = cut.state()
    saved = json.dumps(state)
    train(cut, kept + 1, min(kept + 3, 12))
    assert json.dumps(state) == saved, "what was saved does not move with the window"
    again = Metrics(tmp_path / "cut.jsonl", "vae")
    again.rewind(kept, json.loads(saved))
    train(again, kept + 1, 12)
    assert numbers(again.path) == numbers(whole.path)


def test_a_rewind_to_one_state_twice_is_the_same_twice(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "vae")
    train(metrics, 1, 6)
    state = metrics.state()
    for _ in range(2):  # the guard may go back to the same good state again
        metrics.rewind(6, state)
        train(metrics, 7, 8)
        first = numbers(metrics.path)
    metrics.rewind(6, state)
    train(metrics, 7, 8)
    assert numbers(metrics.path) == first


def test_a_rewind_leaves_other_stages(tmp_path: Path) -> None:
    vae, denoiser = (Metrics(tmp_path / "metrics.jsonl", stage) for stage in ("vae", "denoiser"))
    vae.write(9, by_noise=[None, 0.5])
    denoiser.write(3, loss=1.0)
    before = vae.path.read_bytes().splitlines()
    denoiser.rewind(0, None)
    assert vae.path.read_bytes().splitlines() == before[:1]


def test_only_one_of_several_processes_writes_and_all_hold_the_same_window(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    lead = Metrics(tmp_path / "metrics.jsonl", "vae", tracked=told.append)
    other = Metrics(tmp_path / "other.jsonl", "vae", writes=False, tracked=lambda record: pytest.fail("not its turn"))
    for metrics in (lead, other):
        train(metrics, 1, 6)
    assert other.state() == lead.state()
    other.rewind(4, lead.state())
    lead.rewind(6, lead.state())
    assert other.means() == lead.means() != {}
    assert not other.path.exists()
    assert told == list(read_lines(lead.path))


def test_readers_of_numbers_pass_over_lists(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "denoiser")
    metrics.write(1, held_out_error=0.5, held_out_by_noise=[0.5, None], loss_by_noise=[1.0])
    metrics.write(2, held_out_error=0.25, held_out_by_noise=[0.25, None])
    records = list(read_lines(metrics.path))
    assert last_measures(metrics.path) == {"held_out_error": 0.25}
    assert series(records, "denoiser", "held_out_error") == [(1.0, 0.5), (2.0, 0.25)]
    assert series(records, "denoiser", "held_out_by_noise") == []
