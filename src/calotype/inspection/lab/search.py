"""The way through the settings: along each axis in turn, to what is better by more than its standard error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from calotype.core.progress import Reporter
from calotype.evaluation.paired import Scale, cost, cost_difference, scale_of
from calotype.inspection.lab.bench import Bench, Result, Task
from calotype.inspection.lab.plan import WIDTHS, axes
from calotype.inspection.lab.setting import Setting

SLOWEST = 2.0  # times the default's passes that a new default may take
AS_GOOD = 0.1  # of the default's cost: what is surely no further from the best is as good
QUICKER = 0.75  # of the passes of the best: what is worth a word
STANDARD_ERROR = 1.96  # half an interval is so many of them


@dataclass
class Search:
    """A sweep on its way: what was scored, the default first, and how it got to the best of it."""

    bench: Bench
    task: Task
    fresh: Task
    most: int
    reporter: Reporter
    results: dict[Setting, Result] = field(default_factory=dict)
    path: list[dict[str, Any]] = field(default_factory=list)
    ahead: int = 0  # pictures, from the setting at work on
    drawn_pictures: int = 0
    drawn_seconds: float = 0.0

    @property
    def default(self) -> Result:
        return next(iter(self.results.values()))

    @cached_property
    def scale(self) -> Scale:
        """What costs are shares of: what the default leaves to be gained before the autoencoder is the limit."""
        return scale_of(self.default.measured, self.bench.ceiling(self.task))

    def try_all(self, settings: Sequence[Setting]) -> list[Result]:
        """The results of these settings, as far as their number allows."""
        found = []
        for setting in settings:
            if setting not in self.results:
                if len(self.results) >= self.most:
                    continue
                self.results[setting] = self._score(setting)
            found.append(self.results[setting])
        return found

    def _score(self, setting: Setting) -> Result:
        self.ahead = (self.most - len(self.results)) * self.task.count + 2 * self.fresh.count
        number = len(self.results) + 1
        base = next(iter(self.results), setting)
        self.reporter.stage(f"setting {number} of {self.most}", setting.words(base))
        result = self.bench.score(setting, self.task, Overall(self, self.reporter))
        told = f"kernel distance (10⁻³) {1000 * result.kernel.value:.1f}"
        told += "" if result.fidelity is None else f", as asked {100 * result.fidelity.value:.0f} %"
        self.reporter.say(f"{setting.words(base)}: {told}, {result.seconds:.3f} s a picture")
        return result

    def walk(self, default: Setting) -> Result:
        """Along each axis in turn, moving to what is better by more than its standard error."""
        best = self.try_all([default])[0]
        bench = self.bench
        asked = bench.roles.kind != "nothing"
        weights = bench.available((*WIDTHS, "live"))
        for name, points in axes(bench.model.process, asked=asked, weights=weights):
            found = self.try_all([point for point in points(best.setting, list(self.results)) if point != best.setting])
            better = [one for one in found if self._passes(one) and self._is_better(one, best)]
            if better:
                best = min(better, key=self.cost)
            self.path.append({"axis": name, "tried": [one.key for one in found], "best": best.key})
        return best

    def best_of_grid(self, default: Setting, points: Sequence[Setting]) -> Result:
        """All points of a grid that was given; the best of them that is not too slow."""
        best = self.try_all([default])[0]
        for one in self.try_all(points):
            if self._passes(one) and self.cost(one) < self.cost(best):
                best = one
        return best

    def cost(self, one: Result) -> float:
        return cost(one.measured, self.scale)

    def _passes(self, one: Result) -> bool:
        return one.passes <= SLOWEST * self.default.passes

    def _is_better(self, one: Result, best: Result) -> bool:
        difference = cost_difference(one.measured, best.measured, self.scale)
        return difference.value < -(difference.high - difference.value) / STANDARD_ERROR


class Overall:
    """A reporter of one setting's pictures that tells how far the whole sweep is."""

    def __init__(self, search: Search, reporter: Reporter) -> None:
        self.search, self.reporter = search, reporter
        self.before, self.began = search.drawn_pictures, time.monotonic()
        self.seconds = search.drawn_seconds

    def update(
        self,
        done: int,
        total: int | None,
        *,
        rate: float | None = None,
        unit: str = "pictures/s",
        eta: float | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        search = self.search
        search.drawn_pictures, search.drawn_seconds = self.before + done, self.seconds + time.monotonic() - self.began
        pace = search.drawn_seconds / search.drawn_pictures
        self.reporter.update(done, total, rate=rate, unit=unit, eta=(search.ahead - done) * pace)

    def stage(self, name: str, note: str = "") -> None:
        self.reporter.stage(name, note)

    def say(self, message: str) -> None:
        self.reporter.say(message)

    def warn(self, message: str) -> None:
        self.reporter.warn(message)


def front(search: Search) -> list[Result]:
    """Settings than which none is both better and faster, the fastest first."""
    found: list[Result] = []
    for one in sorted(search.results.values(), key=lambda one: (one.passes, search.cost(one))):
        if not found or search.cost(one) < search.cost(found[-1]):
            found.append(one)
    return found


def quicker(search: Search, best: Result) -> Result | None:
    """The fastest setting that is as good as the best and takes clearly less time; None where there is none."""
    found = [
        one
        for one in search.results.values()
        if one.passes <= QUICKER * best.passes
        and cost_difference(one.measured, best.measured, search.scale).high < AS_GOOD
    ]
    return min(found, key=lambda one: one.passes, default=None)
