"""Notice when a stage becomes much slower than it was: on a CPU, one other busy process can cost most of the speed."""

from __future__ import annotations

WINDOW = 10.0  # seconds over which a rate is taken
SLOW = 0.5  # share of the best rate below which the user is told, once


class Pace:
    """Rates over windows of ten seconds, compared with the best one so far."""

    def __init__(self, step: int, now: float) -> None:
        self._mark = (step, now)
        self._best = 0.0
        self._told = False

    def slowed_to(self, step: int, now: float) -> float | None:
        """The share of the best rate that is left, once, when a window falls below half of it; else None."""
        steps, seconds = step - self._mark[0], now - self._mark[1]
        if seconds < WINDOW or steps == 0:
            return None
        self._mark = (step, now)
        rate = steps / seconds
        self._best = max(self._best, rate)
        if self._told or rate >= SLOW * self._best:
            return None
        self._told = True
        return rate / self._best
