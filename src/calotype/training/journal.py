"""The run's journal: what was asked for and what was decided, once, so that a replay takes the same steps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from calotype.core import distributed
from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import write_text

SECONDS_A_STEP = 0.25


@dataclass(frozen=True)
class Budget:
    """How long to train: `minutes` of the whole run, or `steps` of the denoiser. Exactly one is set."""

    minutes: float | None = None
    steps: int | None = None

    @property
    def amount(self) -> float:
        return self.minutes if self.minutes is not None else float(self.steps or 0)

    @property
    def rough_seconds(self) -> float:
        """How long that is; of a number of steps a guess, the default denoiser's time on two cores."""
        return 60 * self.minutes if self.minutes is not None else SECONDS_A_STEP * (self.steps or 0)

    def __str__(self) -> str:
        return f"--minutes {self.minutes:g}" if self.minutes is not None else f"--steps {self.steps}"


@dataclass(frozen=True)
class Segment:
    """Steps [start, end) of a stage under one learning-rate curve; `end` is None until it is decided.

    `decay_from` is the step the rate falls from, where that was decided too.
    """

    start: int
    seconds: float | None
    end: int | None
    decay_from: int | None = None

    def decay_begins(self, decay_share: float) -> float:
        """The step from which the rate falls: decided, or where that share of the steps is left; before that, never."""
        if self.end is None:
            return math.inf
        return self.end - decay_share * (self.end - self.start) if self.decay_from is None else self.decay_from


class Journal:
    """An append-only list of events in `journal.jsonl`; every change is written atomically before it takes effect.

    Where several processes work together all call its methods alike, rank 0 decides and writes, and all get its events.
    """

    def __init__(self, path: Path, *, together: bool = False) -> None:
        """`together`: every process makes this call, and gets what rank 0 reads; else it is an onlooker's."""
        self.path = path
        self.events: list[dict[str, Any]]
        if together:
            self.events = distributed.share(_read(path) if distributed.rank() == 0 else [])
        else:
            self.events = _read(path)

    def add(self, event: str, **facts: Any) -> None:
        """Write one event; it is durable when this returns."""
        self.events.append(distributed.share({"event": event, **facts}))
        if distributed.rank() == 0:
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.events))

    def identity(self, stage: str) -> str:
        """What marks this run's checkpoints of a stage as its own; runs of an older calotype have none."""
        return next((f"{record['id']}/{stage}" for record in self.events if record["event"] == "run"), "")

    def request(self, budget: Budget) -> None:
        """Record what the user asks for. The same continues, a larger budget trains on, anything else is refused.

        (A smaller one that the denoiser has not reached is another matter: `shorten`.)
        """
        asked = self.requests()
        if not self.events:
            self.add("run", id=uuid4().hex)
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
        found: list[Budget] = []
        for record in self.events:
            if record["event"] in ("request", "shortened"):
                kept = found if record["event"] == "request" else found[:-1]
                found = [*kept, Budget(record["minutes"], record["steps"])]
        return found

    def shorten(self, budget: Budget, step: int, spent: float, decay_share: float) -> None:
        """Give the last request a smaller `budget` and so a nearer end to the denoiser, which is at `step`.

        Its decay then begins at once, or where it would for a run of that length from the start. Refused (UserError)
        where that end is past, or the decay has begun.
        """
        requests, segments, old = self.requests(), self.segments("denoiser"), self.requests()[-1]
        facts: dict[str, Any] = {"minutes": budget.minutes, "steps": budget.steps}
        possible = all(request.amount < budget.amount for request in requests[:-1])  # those are done
        if possible and len(segments) == len(requests):
            segment = segments[-1]
            facts["stage"] = "denoiser"
            if budget.steps is not None and segment.end is not None:
                begins = round(Segment(segment.start, None, budget.steps).decay_begins(decay_share))
                facts |= {"end": budget.steps, "decay_from": max(step, begins)}
                possible = step < budget.steps and step <= round(segment.decay_begins(decay_share))
            elif budget.minutes is not None and segment.end is None and segment.seconds is not None:
                facts["seconds"] = round(segment.seconds - 60 * (old.amount - budget.minutes), 1)
                possible = facts["seconds"] > spent
            else:
                possible = False
        elif possible and budget.minutes is not None:
            first = self.segments("vae")[-1:]
            if first and first[0].end is None and first[0].seconds is not None:  # both stages give way alike
                facts |= {"stage": "vae", "seconds": round(first[0].seconds * budget.minutes / old.amount, 1)}
        if not possible:
            raise UserError(
                f"this run was already given {old} and is too far on to end at {budget}",
                "give the same command as before to finish it, or choose another --out",
            )
        self.add("shortened", **facts)

    def rate_factor(self, stage: str, step: int) -> float:
        """What is left of the learning rate at `step` after the times that training diverged and went back."""
        factor = 1.0
        for record in self._of(stage, "rolled_back"):
            factor *= record["rate"] if record["to"] <= step else 1.0
        return factor

    def rollbacks(self, stage: str) -> int:
        """How often a stage went back."""
        return len(self._of(stage, "rolled_back"))

    def micro_batch(self, stage: str, step: int) -> int | None:
        """How many samples at a time had to do from `step` on, for want of memory; None where there was no want."""
        found = [record["size"] for record in self._of(stage, "micro_batch") if record["step"] <= step]
        return min(found, default=None)

    def _of(self, stage: str, event: str) -> list[dict[str, Any]]:
        return [record for record in self.events if record["event"] == event and record["stage"] == stage]

    def segments(self, stage: str) -> list[Segment]:
        """The stage's segments in order."""
        found: list[Segment] = []
        for record in self.events:
            if record.get("stage") != stage:
                continue
            if record["event"] == "segment":
                found.append(Segment(record["start"], record.get("seconds"), record.get("end")))
            elif record["event"] == "decided":
                found[-1] = replace(found[-1], end=record["end"], decay_from=record.get("decay_from"))
            elif record["event"] == "shortened":
                changed = {name: record[name] for name in ("seconds", "end", "decay_from") if name in record}
                found[-1] = replace(found[-1], **changed)
        return found


_FACTS = {  # what each event says at least
    "run": {"id"},
    "request": {"minutes", "steps"},
    "shortened": {"minutes", "steps"},
    "segment": {"stage", "start"},
    "decided": {"stage", "end"},
    "rolled_back": {"stage", "to", "rate"},
    "micro_batch": {"stage", "step", "size"},
}


def _read(path: Path) -> list[dict[str, Any]]:
    """The events; the journal is written whole, so a line that is none was altered (CorruptFileError)."""
    if not path.exists():
        return []
    try:
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        events = [None]
    if not all(
        isinstance(record, dict) and _FACTS.get(str(record.get("event")), {""}) <= record.keys() for record in events
    ):
        raise CorruptFileError(f"{path} was altered", "restore it: it says which steps this run takes")
    return events
