"""The run's journal: what was asked for and what was decided, once, so that a replay takes the same steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.core.files import read_lines, write_text


@dataclass(frozen=True)
class Budget:
    """How long to train: `minutes` of the whole run, or `steps` of the denoiser. Exactly one is set."""

    minutes: float | None = None
    steps: int | None = None

    @property
    def amount(self) -> float:
        return self.minutes if self.minutes is not None else float(self.steps or 0)

    def __str__(self) -> str:
        return f"--minutes {self.minutes:g}" if self.minutes is not None else f"--steps {self.steps}"


@dataclass(frozen=True)
class Segment:
    """Steps [start, end) of a stage under one learning-rate curve; `end` is None until it is decided."""

    start: int
    seconds: float | None
    end: int | None


class Journal:
    """An append-only list of events in `journal.jsonl`; every change is written atomically before it takes effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = list(read_lines(path))

    def add(self, event: str, **facts: Any) -> None:
        """Write one event; it is durable when this returns."""
        self.events.append({"event": event, **facts})
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.events))

    def request(self, budget: Budget) -> None:
        """Record what the user asks for. The same continues, a larger budget trains on, anything else is refused."""
        asked = self.requests()
        if asked and asked[-1] == budget:
            return
        if asked and (asked[-1].minutes is None) != (budget.minutes is None):
            raise UserError(f"this run was started with {asked[-1]}, not {budget}", "keep to the same kind of budget")
        if asked and budget.amount < asked[-1].amount:
            mend = "a larger budget trains on; a smaller one needs another --out"
            raise UserError(f"this run was already given {asked[-1]}", mend)
        self.add("request", minutes=budget.minutes, steps=budget.steps)

    def requests(self) -> list[Budget]:
        """The budgets asked for, in order."""
        return [Budget(e["minutes"], e["steps"]) for e in self.events if e["event"] == "request"]

    def segments(self, stage: str) -> list[Segment]:
        """The stage's segments in order."""
        found: list[Segment] = []
        for record in self.events:
            if record.get("stage") != stage:
                continue
            if record["event"] == "segment":
                found.append(Segment(record["start"], record.get("seconds"), record.get("end")))
            elif record["event"] == "decided":
                found[-1] = Segment(found[-1].start, found[-1].seconds, record["end"])
        return found
