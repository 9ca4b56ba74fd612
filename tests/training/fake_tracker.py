"""A stranger's tracker, found by its entry point; it remembers what it was told, across the processes of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

from calotype.core.files import append_line, read_lines
from calotype.training.boards import PLUG_INS, Opening


class Power(BaseException):
    """The process dies here."""


class FakeTracker:
    """Appends what it is told to a file. `fails_at` and `dies_at` count messages over the whole run."""

    fails_at: int | None = None
    dies_at: int | None = None
    opens = True
    told = 0

    def __init__(self, opening: Opening) -> None:
        if not self.opens:
            raise OSError("no network\nat all")
        self.path = opening.folder / "told.jsonl"
        self.id = opening.id or "its-own-name"
        self.where = "nowhere to look"
        append_line(self.path, {"opened": opening.id, "config": dict(opening.config)})

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._tell({"stage": stage, "step": step, **values})

    def image(self, stage: str, step: int, name: str, path: Path) -> None:
        self._tell({"stage": stage, "step": step, "picture": name, "bytes": len(path.read_bytes())})

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        append_line(self.path, {"closed": True})

    def _tell(self, record: dict[str, object]) -> None:
        FakeTracker.told += 1
        if self.told == self.dies_at:
            raise Power
        if self.told == self.fails_at:
            raise ConnectionError("the server hung up")
        append_line(self.path, record)


def entry_points(group: str) -> EntryPoints:
    """What importlib.metadata would find, were the packages of these trackers installed."""
    assert group == PLUG_INS
    here = "tests.training.fake_tracker"
    found = {"fake": f"{here}:FakeTracker", "other": f"{here}:FakeTracker", "gone": "no_such_package:Tracker"}
    return EntryPoints(EntryPoint(name, value, group) for name, value in found.items())


def told(run: Path, name: str = "fake") -> list[dict[str, object]]:
    """What a tracker was told so far, in order, without its openings and closings."""
    return [r for r in read_lines(run / "trackers" / name / "told.jsonl") if "stage" in r]


def position(run: Path, name: str = "fake") -> dict[str, object]:
    return json.loads((run / "trackers" / f"{name}.json").read_text())
