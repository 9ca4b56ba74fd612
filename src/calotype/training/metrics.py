"""`metrics.jsonl`: one record a line, means over windows of steps, replayed exactly after a stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from calotype.core.files import append_line, read_lines, write_text

Value = float | Sequence[float | None]
Bins = Mapping[str, tuple[list[float], list[float]]]


class Metrics:
    """Sums losses over a window of steps and writes their means; the half-filled window travels with checkpoints.

    Of several processes one alone `writes`; the others keep the same window and touch no file. `tracked` is given each
    record that is written.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        *,
        writes: bool = True,
        tracked: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.path, self.stage, self.writes, self.tracked = path, stage, writes, tracked
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.bins: dict[str, tuple[list[float], list[float]]] = {}

    def rewind(self, step: int, state: dict[str, Any] | None) -> None:
        """Forget what this stage wrote after `step`; those steps will be taken again."""
        if self.writes:
            kept = [r for r in read_lines(self.path) if r.get("stage") != self.stage or r["step"] <= step]
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        window = deepcopy(state or {})
        self.sums, self.counts = window.get("sums", {}), window.get("counts", {})
        self.bins = {name: (sums, counts) for name, (sums, counts) in window.get("bins", {}).items()}

    def add(self, losses: Mapping[str, float], bins: Bins | None = None) -> None:
        """Take one step into the window: its losses, and (sums, counts) over its samples by bin of noise level."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        for name, (sums, counts) in (bins or {}).items():
            so_far = self.bins.get(name, ([0.0] * len(sums), [0.0] * len(counts)))
            self.bins[name] = _added(so_far[0], sums), _added(so_far[1], counts)

    def means(self) -> dict[str, float]:
        """The window's means so far, each over the steps that had the term: some join later than others."""
        return {name: value / self.counts[name] for name, value in self.sums.items()}

    def bin_means(self) -> dict[str, list[float | None]]:
        """The window's means so far over all samples of each bin; None where a bin had none."""
        return {
            name: [total / count if count else None for total, count in zip(sums, counts, strict=True)]
            for name, (sums, counts) in self.bins.items()
        }

    def flush(self, step: int, **extra: float) -> dict[str, float]:
        """Write the window's means after `step` steps and open a new window."""
        means = self.means()
        self.write(step, **means, **self.bin_means(), **extra)
        self.sums, self.counts, self.bins = {}, {}, {}
        return means

    def write(self, step: int, **values: Value) -> None:
        """Write one record, and hand it on."""
        if not self.writes:
            return
        record = {"stage": self.stage, "step": step, **values, "time": round(time.time(), 3)}
        append_line(self.path, record)
        if self.tracked is not None:
            self.tracked(record)

    def state(self) -> dict[str, Any]:
        """The half-filled window, for a checkpoint: a copy, which later steps leave as it is."""
        return {"sums": dict(self.sums), "counts": dict(self.counts), "bins": deepcopy(self.bins)}


def last_measures(path: Path) -> dict[str, float]:
    """The newest value of everything measured on fixed data, by name; numbers, not lists of them."""
    found: dict[str, float] = {}
    for record in read_lines(path):
        found |= {
            name: value
            for name, value in record.items()
            if name.startswith(("held_out_", "train_error")) and isinstance(value, int | float)
        }
    return found


def _added(left: list[float], right: list[float]) -> list[float]:
    return [a + b for a, b in zip(left, right, strict=True)]
