"""One number as a dot with its interval, between what it could be at best and at worst: inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from calotype.inspection.report.page import number

Shape = Literal["ceiling", "floor", "chance"]

WIDTH, HEIGHT, MARGIN = 480.0, 30.0, 12.0
MARKS: dict[str, str] = {  # what stands on a scale besides the dot: shape, and what it is called
    "ceiling": "what reconstructions reach: the best that this autoencoder allows",
    "floor": "real pictures that it never saw",
    "chance": "chance",
}


@dataclass(frozen=True)
class Scale:
    """`estimate` is {"value", "low", "high", "count"}; `marks` are other values beside it, by shape, with their names.

    `better` says which end is the good one, which is always drawn on the right. `share`: the scale goes from 0 to 1.
    """

    name: str
    told: str
    estimate: Mapping[str, Any]
    better: Literal["high", "low"]
    marks: Mapping[Shape, tuple[str, float]] = field(default_factory=dict)
    share: bool = False
    of: str = "pictures"

    def html(self) -> str:
        """A row: name, scale, number with interval and how many things it rests on."""
        value, low, high = (self._text(self.estimate[key]) for key in ("value", "low", "high"))
        others = ", ".join(f"<span>{escape(name)} {self._text(at)}</span>" for name, at in self.marks.values())
        return (
            f'<div class="score"><div><b>{escape(self.name)}</b><small>{escape(self.told)}</small></div>\n'
            f'<svg class="scale" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(self._spoken())}">'
            f"{self._drawing()}</svg>\n"
            f'<div class="value"><b>{value}</b> <small>{low} to {high}, N {self.estimate["count"]:,}</small>'
            f"{f'<small>{others}</small>' if others else ''}</div></div>\n"
        )

    def _drawing(self) -> str:
        least, most = self._ends()

        def place(at: float) -> float:
            share = min(max((at - least) / (most - least), 0.0), 1.0)
            return MARGIN + (WIDTH - 2 * MARGIN) * (share if self.better == "high" else 1 - share)

        middle = HEIGHT / 2
        low, high = sorted(place(self.estimate[key]) for key in ("low", "high"))
        parts = [f'<path class="axis" d="M{MARGIN:g} {middle:g}H{WIDTH - MARGIN:g}"/>']
        parts.append(f'<path class="span" d="M{low:.1f} {middle:g}H{max(high, low + 0.1):.1f}"/>')
        parts += [draw_mark(shape, place(at)) for shape, (_, at) in self.marks.items()]
        parts.append(draw_mark("dot", place(self.estimate["value"])))
        return "".join(parts)

    def _ends(self) -> tuple[float, float]:
        """The scale's range: from 0, or below where an interval goes there, to a little beyond all that is on it."""
        values = [self.estimate[key] for key in ("value", "low", "high")] + [at for _, at in self.marks.values()]
        if self.share:
            return 0.0, max(1.0, *values)
        return min(0.0, *values), max(1.05 * max(values), 1e-12)

    def _text(self, value: float) -> str:
        return (f"{100 * value:.3g}%" if self.share else number(value)).replace("-", "−")

    def _spoken(self) -> str:
        others = "".join(f"; {name} {self._text(at)}" for name, at in self.marks.values())
        value, low, high = (self._text(self.estimate[key]) for key in ("value", "low", "high"))
        good = "higher" if self.better == "high" else "lower"
        return f"{self.name} {value}, 95 % interval {low} to {high}{others}; {good} is better"


def draw_mark(shape: str, x: float) -> str:
    """A dot for the model, a ring for reconstructions, a diamond for real pictures, a bar for chance."""
    y = HEIGHT / 2
    if shape == "dot":
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:g}" r="6"/>'
    if shape == "ceiling":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:g}" r="6"/>'
    if shape == "floor":
        return f'<path class="mark solid" d="M{x:.1f} {y - 8:g}l7 8l-7 8l-7 -8z"/>'
    return f'<path class="mark" d="M{x:.1f} {y - 9:g}v18"/>'


def key_of(scales: list[Scale], good: str = "better") -> str:
    """What the marks on these scales mean; further right is `good`."""
    used = {shape for scale in scales for shape in scale.marks}
    entries = {"dot": f"this model, with its 95 % interval; further right is {good}"}
    entries |= {shape: words for shape, words in MARKS.items() if shape in used}
    items = "".join(
        f'<li><svg viewBox="0 0 24 {HEIGHT:g}" class="scale" aria-hidden="true">{draw_mark(shape, 12)}</svg>'
        f"{words}</li>\n"
        for shape, words in entries.items()
    )
    return f'<ul class="key">\n{items}</ul>\n'
