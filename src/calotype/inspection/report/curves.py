"""Learning curves as inline SVG, drawn from a run's `metrics.jsonl` records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from typing import Any, Literal

from calotype.inspection.report.page import number

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 8.0, 22.0
MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    """One line of a panel: `points` are (step, value) in rising step, `kind` chooses its ink.

    noisy: a smoothed line is drawn over a faint one. tint: instead of `kind`, an ink from slate (0) to plum (1).
    low, high: the ends of each point's interval, drawn as a band.
    """

    name: str
    points: Points
    kind: Literal["train", "held"] = "train"
    noisy: bool = False
    tint: float | None = None
    low: Points = field(default_factory=list)
    high: Points = field(default_factory=list)

    def ink(self, attribute: str) -> str:
        """The tint as a style, where it has one."""
        if self.tint is None:
            return ""
        return f' style="{attribute}:color-mix(in oklab, var(--print) {100 * self.tint:.0f}%, var(--slate))"'


def series(records: Iterable[Mapping[str, Any]], stage: str, key: str) -> Points:
    """(step, value) of `key` in the records of a stage; a step logged twice (a resumed run) counts once, the last."""
    found: dict[float, float] = {}
    for record in records:
        value = record.get(key)
        if record.get("stage") == stage and isinstance(value, int | float) and math.isfinite(value):
            found[float(record.get("step", 0))] = float(value)
    return sorted(found.items())


def thin(points: Points, most: int = MAX_POINTS) -> Points:
    """At most `most` points: means over consecutive, equally long pieces. The last step stays the last."""
    if len(points) <= most:
        return points
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    pieces = [points[a:b] for a, b in pairwise(edges)]
    means = [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]
    return [*means[:-1], (points[-1][0], means[-1][1])]


def smooth(points: Points, share: float = 0.06) -> Points:
    """Centred moving average over `share` of the curve, the window cut at both ends alike, so no end is shifted."""
    reach = int(len(points) * share / 2)
    result = []
    for i, (x, _) in enumerate(points):
        near = min(reach, i, len(points) - 1 - i)
        window = points[i - near : i + near + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def panel(title: str, lines: Sequence[Series], *, unit: str = "", log: bool = False, from_zero: bool = False) -> str:
    """A captioned plot, or nothing when no line has two points. Values below the title are the last ones.

    log: logarithmic axis, given up when a value is not positive. from_zero: the axis includes 0.
    """
    lines = [replace(line, points=thin(line.points)) for line in lines if len(line.points) >= 2]
    if not lines:
        return ""
    drawn = [smooth(line.points) if line.noisy else line.points for line in lines]
    values = [y for points in [*drawn, *(end for line in lines for end in (line.low, line.high))] for _, y in points]
    axis = _Axis.over(values, log=log and min(values) > 0, from_zero=from_zero)
    first, last = min(points[0][0] for points in drawn), max(points[-1][0] for points in drawn)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - first) / max(last - first, 1e-9)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - axis.share(point[1]))

    inside = [_gridline(tick, place((first, tick))[1]) for tick in axis.ticks]
    inside += [_step_label(step, place((step, values[0]))[0]) for step in _step_ticks(first, last)]
    inside += [_path(map(place, [*line.low, *reversed(line.high)]), "band") for line in lines if line.low]
    inside += [_path(map(place, line.points), "f") for line in lines if line.noisy]
    inside += [
        _path(map(place, pts), line.kind[0], line.ink("stroke")) + _dot(place(pts[-1]), line.kind[0], line.ink("fill"))
        for line, pts in _zip(lines, drawn)
    ]
    spoken = "; ".join(
        f"{line.name or title} from {number(pts[0][1])} to {number(pts[-1][1])}{_spaced(unit)}"
        for line, pts in _zip(lines, drawn)
        if line.name or line.tint is None
    )
    legend = "".join(
        f'<span class="{line.kind} value"{line.ink("color")}>'
        f"{escape(line.name)} {number(pts[-1][1])}{_spaced(unit)}</span>"
        for line, pts in _zip(lines, drawn)
        if line.name or line.tint is None
    )
    label = escape(f"{title} over {number(last)} steps: {spoken}.")
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{"".join(inside)}</svg></figure>\n'
    )


@dataclass(frozen=True)
class _Axis:
    """The value axis: its range and round ticks inside it."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    @staticmethod
    def over(values: Sequence[float], *, log: bool, from_zero: bool) -> _Axis:
        low, high = min(values), max(values)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if log:
            low, high = low / 1.08, high * 1.08
            return _Axis(low, high, True, _log_ticks(low, high))
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low if from_zero else low - margin, high + margin
        return _Axis(low, high, False, _round_ticks(low, high, 4))

    def share(self, value: float) -> float:
        """Where `value` lies between the bottom (0) and the top (1); values outside are held at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _round_ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    gap = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return tuple(gap * i for i in range(math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9) + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Decades, with 2 and 5 between them when they are few; plain round numbers where that leaves fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    ticks = tuple(tick for p in powers for m in factors if low <= (tick := m * 10.0**p) <= high)
    return ticks if len(ticks) >= 3 else _round_ticks(low, high, 4)


def _step_ticks(first: float, last: float) -> list[float]:
    return list(_round_ticks(first, last, 5)) if last > first else [first]


def _gridline(value: float, y: float) -> str:
    return (
        f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>'
        f'<text x="{LEFT - 6:g}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>'
    )


def _step_label(step: float, x: float) -> str:
    anchor = "start" if x < LEFT + 10 else "end" if x > WIDTH - RIGHT - 10 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - 6:g}" text-anchor="{anchor}">{_short(step)}</text>'


def _path(points: Iterable[tuple[float, float]], kind: str, ink: str = "") -> str:
    return f'<path class="{kind}"{ink} d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def _dot(point: tuple[float, float], kind: str, ink: str = "") -> str:
    return f'<circle class="{kind}d"{ink} cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="3"/>'


def _short(value: float) -> str:
    """A tick's label: 0.5, 20, 3,000, 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""


def _zip(lines: Sequence[Series], drawn: Sequence[Points]) -> list[tuple[Series, Points]]:
    return list(zip(lines, drawn, strict=True))
