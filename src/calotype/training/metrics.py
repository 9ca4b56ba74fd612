"""`metrics.jsonl`: one record a line, means over windows of steps, replayed exactly after a stop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from calotype.core.files import append_line, read_lines, write_text


class Metrics:
    """Sums losses over a window of steps and writes their means; the half-filled window travels with checkpoints."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def rewind(self, step: int, state: dict[str, Any] | None) -> None:
        """Forget what this stage wrote after `step`; those steps will be taken again."""
        kept = [r for r in read_lines(self.path) if r.get("stage") != self.stage or r["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.sums, self.counts = (dict(state["sums"]), dict(state["counts"])) if state else ({}, {})

    def add(self, losses: dict[str, float]) -> None:
        """Take one step's losses into the window."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The window's means so far, each over the steps that had the term: some join later than others."""
        return {name: value / self.counts[name] for name, value in self.sums.items()}

    def flush(self, step: int, **extra: float) -> dict[str, float]:
        """Write the window's means after `step` steps and open a new window."""
        means = self.means()
        self.write(step, **means, **extra)
        self.sums, self.counts = {}, {}
        return means

    def write(self, step: int, **values: float) -> None:
        """Write one record."""
        append_line(self.path, {"stage": self.stage, "step": step, **values, "time": round(time.time(), 3)})

    def state(self) -> dict[str, Any]:
        """The half-filled window, for a checkpoint."""
        return {"sums": self.sums, "counts": self.counts}


def last_measures(path: Path) -> dict[str, float]:
    """The newest value of everything measured on fixed data, by name."""
    found: dict[str, float] = {}
    for record in read_lines(path):
        found |= {name: value for name, value in record.items() if name.startswith(("held_out_", "train_error"))}
    return found
