"""Trackers are told everything once, over any stops, and never stop a training."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import append_line
from calotype.core.progress import Silent
from calotype.training import boards
from calotype.training.metrics import Metrics
from calotype.training.tracking import Trackers
from tests.training.fake_tracker import FakeTracker, Power, entry_points, position, told


@pytest.fixture(autouse=True)
def _plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "entry_points", entry_points)
    for name in ("fails_at", "dies_at"):
        monkeypatch.setattr(FakeTracker, name, None)
    monkeypatch.setattr(FakeTracker, "opens", True)
    monkeypatch.setattr(FakeTracker, "told", 0)


class Words(Silent):
    """Keeps what is said and warned."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


def track(run: Path, *names: str, words: Words | None = None) -> Trackers:
    return Trackers(run, names or ("fake",), project="p", run="r", config={"size": 8}, reporter=words)


def record(step: int, stage: str = "vae", **values: Any) -> dict[str, Any]:
    return {"stage": stage, "step": step, **(values or {"loss": 1.0 / step}), "time": 12.5}


def test_no_names_touch_nothing(tmp_path: Path) -> None:
    append_line(tmp_path / "metrics.jsonl", record(1))
    trackers = track(tmp_path)
    trackers.close()
    empty = Trackers(tmp_path / "other", (), project="p", run="r", config={})
    empty.record(record(1))
    empty.image("vae", 1, tmp_path / "absent.png")
    empty.close()
    assert not (tmp_path / "other").exists()


def test_numbers_go_and_clocks_ids_words_and_empty_bins_do_not(tmp_path: Path) -> None:
    trackers = track(tmp_path)
    trackers.record(record(5, loss=2, by_noise=[0.5, None, 0.25], skipped=[3, 4], note="x"))
    trackers.record(record(6, skipped=[7]))
    assert told(tmp_path) == [{"stage": "vae", "step": 5, "loss": 2.0, "by_noise/0": 0.5, "by_noise/2": 0.25}]


def test_a_resumed_run_sends_nothing_twice_and_leaves_nothing_out(tmp_path: Path) -> None:
    first = track(tmp_path)
    picture = tmp_path / "vae-00000004-live.png"
    picture.write_bytes(b"four")
    for step in (2, 4):
        first.record(record(step))
    first.image("vae", 4, picture)
    first.record(record(4, held_out_psnr=20.0))  # a second record of the same step
    again = track(tmp_path)  # killed, and continued from step 2
    again.record(record(4))
    again.image("vae", 4, picture)
    again.record(record(4, held_out_psnr=20.0, held_out_ssim=0.5))
    again.record(record(6))
    again.image("vae", 5, picture)  # finished after the next record
    again.record(record(2, "denoiser"))
    assert [{k: v for k, v in r.items() if k != "stage"} for r in told(tmp_path)] == [
        {"step": 2, "loss": 0.5},
        {"step": 4, "loss": 0.25},
        {"step": 4, "picture": "live", "bytes": 4},
        {"step": 4, "held_out_psnr": 20.0},
        {"step": 4, "held_out_ssim": 0.5},
        {"step": 6, "loss": 1 / 6},
        {"step": 5, "picture": "00000004-live", "bytes": 4},
        {"step": 2, "loss": 0.5},
    ]
    assert position(tmp_path)["id"] == "its-own-name"


def test_any_stops_at_any_message(tmp_path: Path) -> None:
    """Killed in and between messages, from any checkpoint: at most the message of the kill is lost, none repeats."""
    chance = random.Random(5)
    everything = [record(step, stage) for stage in ("vae", "denoiser") for step in range(1, 13)]
    for trial in range(5):
        run, lost, done = tmp_path / str(trial), 0, 0
        while done < len(everything):
            trackers, reached = track(run), done
            FakeTracker.dies_at = FakeTracker.told + chance.randint(1, 9)
            last = min(len(everything), done + chance.randint(1, 12))
            try:
                for message in everything[done:last]:
                    trackers.record(message)
                    reached += 1
            except Power:
                lost += 1
            done = reached if reached == len(everything) else chance.randint(done, reached)
        FakeTracker.dies_at = None
        track(run).record(everything[-1])
        keys = [(r["stage"], r["step"]) for r in told(run)]
        assert len(keys) == len(set(keys)), "sent twice"
        assert len(keys) == len(everything) - lost


def test_a_tracker_that_fails_is_given_up_with_one_warning_and_made_up_for_later(tmp_path: Path) -> None:
    words = Words()
    trackers = track(tmp_path, "fake", "tensorboard", words=words)
    metrics = Metrics(tmp_path / "metrics.jsonl", "vae", tracked=trackers.record)
    FakeTracker.fails_at = 2
    for step in range(1, 5):
        metrics.write(step, loss=float(step))
    trackers.close()
    assert words.warned == [
        "going on without the tracker fake, which failed: the server hung up; "
        "metrics.jsonl has everything, and the next start sends what is missing"
    ]
    assert [r["step"] for r in told(tmp_path)] == [1]
    assert position(tmp_path, "tensorboard")["sent"] == {"vae": [4, ["loss"]]}
    FakeTracker.fails_at = None
    track(tmp_path).close()
    assert [r["step"] for r in told(tmp_path)] == [1, 2, 3, 4]


def test_a_tracker_that_joins_late_is_sent_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.training.tracking.BLOCK", 4)
    for step in range(1, 11):
        append_line(tmp_path / "metrics.jsonl", record(step))
    track(tmp_path).close()
    track(tmp_path).close()
    assert [r["step"] for r in told(tmp_path)] == list(range(1, 11))


def test_names_are_known_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tracker 'wandbb'.*did you mean 'wandb'"):
        track(tmp_path, "fake", "wandbb")
    with pytest.raises(UserError, match=r"gone of no_such_package:Tracker does not load.*no_such_package"):
        track(tmp_path, "fake", "gone")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("tensorboard", "tensorboard", "board"), ("wandb", "wandb", "wandb"), ("trackio", "trackio", "trackio")],
)
def test_a_missing_package_is_one_line_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    for loaded in [found for found in sys.modules if found.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        track(tmp_path, "fake", name)
    assert str(caught.value) == f"the tracker {name} needs {module}: pip install 'calotype[{extra}]'"
    assert '"closed"' in (tmp_path / "trackers" / "fake" / "told.jsonl").read_text()


def test_a_new_run_says_what_does_not_open_and_one_that_goes_on_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTracker, "opens", False)
    with pytest.raises(UserError, match="the tracker fake does not start: no network at all: set that right"):
        track(tmp_path)
    monkeypatch.setattr(FakeTracker, "opens", True)
    track(tmp_path).close()
    monkeypatch.setattr(FakeTracker, "opens", False)
    words = Words()
    track(tmp_path, words=words).record(record(1))
    assert words.warned == ["going on without the tracker fake, which does not start: no network at all"]


def test_a_close_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words()
    trackers = track(tmp_path, words=words)
    monkeypatch.setattr(FakeTracker, "close", lambda self: 1 / 0)
    trackers.close()
    trackers.close()
    assert words.warned == ["the tracker fake did not close: division by zero"]


@pytest.mark.parametrize("content", ["", "[]", '{"id": "x"}', '{"id": "x", "sent": {"vae": 3}}'])
def test_an_altered_position_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "fake.json").write_text(content)
    with pytest.raises(CorruptFileError, match=r"trackers/fake\.json"):
        track(tmp_path)
