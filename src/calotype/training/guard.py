"""What to do when a loss or a gradient is not a number, or when training diverges."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from statistics import median
from typing import Any

DIVERGED = 10.0  # times the loss of the first step
WINDOW = 11  # steps whose median is looked at: one bad batch does not move it
IN_A_ROW = 5  # skipped steps after which the weights, not the pictures, are at fault
MOST_SKIPPED = 100  # steps of a stage
MOST_ROLLBACKS = 6  # of a stage, each at a quarter of the rate of the one before


class Verdict(Enum):
    """Of one step, before its gradient is used."""

    FINE = "fine"
    SKIP = "skip"
    ROLL_BACK = "roll back"


@dataclass
class Guard:
    """Remembers what it needs to judge the next step; a pure function of the losses so far, so that resume is exact."""

    first: float | None = None
    recent: list[float] = field(default_factory=list)
    skipped: int = 0
    in_a_row: int = 0

    def judge(self, loss: float, *, finite: bool, all_samples: bool, floor: float = 0.0) -> Verdict:
        """`loss` is the steady term of the step; `finite`, all losses and gradients are; `all_samples`, none is.

        One bad sample costs its step. A batch of which no sample gives a number, five bad steps running, or a loss
        ten times that of the start (which counts as `floor`, where it is less) mean that the weights are spoilt.
        """
        if not finite:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            spoilt = all_samples or self.in_a_row >= IN_A_ROW
            return Verdict.ROLL_BACK if spoilt else Verdict.SKIP
        self.in_a_row = 0
        self.first = max(abs(loss), floor) if self.first is None else self.first
        self.recent = [*self.recent, abs(loss)][-WINDOW:]
        return Verdict.ROLL_BACK if self.high and len(self.recent) == WINDOW else Verdict.FINE

    @property
    def calm(self) -> bool:
        """Whether these weights are worth keeping: nothing has looked wrong lately."""
        return self.in_a_row == 0 and not self.high

    @property
    def high(self) -> bool:
        """Whether the losses of late are far above the first one."""
        return self.first is not None and bool(self.recent) and median(self.recent) > DIVERGED * max(self.first, 1e-12)

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {"first": self.first, "recent": self.recent, "skipped": self.skipped, "in_a_row": self.in_a_row}

    @staticmethod
    def of(state: dict[str, Any] | None) -> Guard:
        """What `state` gave."""
        return Guard(**state) if state else Guard()
