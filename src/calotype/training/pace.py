"""Notice when a stage becomes much slower than it was: on a CPU, one other busy process can cost most of the speed."""

from __future__ import annotations

WINDOW = 10.0  # seconds over which a rate is taken
MARK = 1.0  # seconds between the moments that are remembered
SLOW = 0.5  # share of the best rate below which the user is told, once


class Pace:
    """Rates of steps over windows of ten seconds, compared with the best one so far."""

    def __init__(self, step: int, now: float) -> None:
        self.begun = step
        self._mark = (step, now)
        self._marks = [self._mark]
        self._best = 0.0
        self._told = False
        self._left_out = 0.0

    def leave_out(self, seconds: float) -> None:
        """Do not count time just spent on something other than steps."""
        self._left_out += seconds

    def late_rate(self, step: int, now: float) -> float:
        """Steps a second over the last third of the time since the start of this process's work."""
        now -= self._left_out
        self._marks.append((step, now))
        begun = self._marks[0][1]
        before = max((mark for mark in self._marks if mark[1] <= begun + (now - begun) * 2 / 3), key=lambda m: m[1])
        return (step - before[0]) / max(now - before[1], 1e-9)

    def slowed_to(self, step: int, now: float) -> float | None:
        """The share of the best rate that is left, once, when a window falls below half of it; else None."""
        now -= self._left_out
        steps, seconds = step - self._mark[0], now - self._mark[1]
        if now - self._marks[-1][1] >= MARK:
            self._marks.append((step, now))
        if seconds < WINDOW or steps == 0:
            return None
        self._mark = (step, now)
        rate = steps / seconds
        self._best = max(self._best, rate)
        if self._told or rate >= SLOW * self._best:
            return None
        self._told = True
        return rate / self._best
