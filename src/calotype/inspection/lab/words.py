"""What a sweep found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summary(record: Mapping[str, Any]) -> str:
    """Two or three sentences for whoever has not seen the table."""
    tried, again = len(record["settings"]), record["again"]
    if again is None:
        told = f"None of the {tried} settings was better than the model's own by more than chance. It stays as it is."
    elif record["better"]:
        words, count = again["best"]["words"], again["count"]
        told = f"Best of {tried} settings: {words}. On {count:,} fresh pictures each: {_compared(again)}."
    else:
        told = (
            f"{again['best']['words']} looked best of {tried} settings, but on {again['count']:,} fresh pictures each "
            f"it is not better beyond chance: {_compared(again)}. The model stays as it is."
        )
    return told + _quicker(record)


def _quicker(record: Mapping[str, Any]) -> str:
    """What saves time at no cost that could be seen."""
    faster = record["quicker"]
    if faster is None:
        return ""
    best = next(one for one in record["settings"] if one["key"] == record["best"])
    share = f"{100 * faster['passes'] / best['passes']:.0f} %"
    return f" About as good in {share} of the time: {faster['words']}."


def _compared(again: Mapping[str, Any]) -> str:
    old, new = again["default"], again["best"]
    parts = [
        _change(
            "kernel distance (10⁻³)", old["kernel"]["value"], new["kernel"]["value"], again["kernel"], "{:.1f}", 1000
        )
    ]
    if again["missed"] is not None:
        share = old["fidelity"]["value"], new["fidelity"]["value"]
        flipped = {name: -again["missed"][name] for name in ("low", "high")}
        flipped = {"low": flipped["high"], "high": flipped["low"]}
        parts.append(_change("drawn as asked", *share, flipped, "{:.0f} %", 100))
    if new["passes"] != old["passes"]:
        parts.append(f"{old['passes']:.0f} to {new['passes']:.0f} passes of the network a picture")
    return ", ".join(parts)


def _change(name: str, old: float, new: float, between: Mapping[str, float], form: str, times: float) -> str:
    low, high = sorted((times * between["low"], times * between["high"]))
    told = [form.format(times * value) for value in (old, new)]
    margin = [form.replace(" %", "").format(value) for value in (low, high)]
    return f"{name} {told[0]} to {told[1]} (by {margin[0]} to {margin[1]}, 95 %)"


def table(record: Mapping[str, Any]) -> list[str]:
    """The settings as rows, the best first; a * marks those than which none is both better and faster.

    Cost: what is left to be gained in kernel distance and misses, as a share of what the model as it is leaves; 0 is as
    good as its autoencoder lets any be. Kernel distances are in 10⁻³.
    """
    asked = record["made"]["asked"] != "nothing"
    rows = sorted(record["settings"], key=lambda one: one["cost"]["value"])
    lines = [f"{'cost':>6} {'(95 %)':>14} {'kernel':>6} {'Fréchet':>7} {'asked':>6} {'s':>7} {'passes':>6}  setting"]
    for one in rows:
        cost, fidelity = one["cost"], one["fidelity"]
        as_asked = f"{100 * fidelity['value']:.0f} %" if asked and fidelity else "-"
        mark = "*" if one["key"] in record["front"] else " "
        lines.append(
            f"{cost['value']:6.2f} {cost['low']:6.2f} to {cost['high']:4.2f} {1000 * one['kernel']['value']:6.1f} "
            f"{one['frechet']:7.1f} {as_asked:>6} {one['seconds']:7.3f} {one['passes']:6.0f} {mark}{one['words']}"
        )
    return lines
