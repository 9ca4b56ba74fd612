"""Does more training help? Read from the curves of what was measured on fixed data while the denoiser trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, read_lines
from calotype.training.journal import Journal

Curve = dict[int, float]  # value by step, in rising step
Verdict = Literal["more helps", "little left", "overfits", "too early"]

ERRORS = {"held_out_error": "held-out pictures", "train_error": "training pictures"}
SCORE = "kernel_distance"
RISE = 0.05  # of the held-out error above its lowest: a rise, where there are MANY pictures; more where there are fewer
MANY = 32
GAIN = 0.02  # of an error per doubling of the steps: worth the time
SCORE_GAIN = 0.1  # of the kernel distance, which rests on few samples and is rougher
AT_REST = 0.1  # of the highest learning rate: below it the rate has come down


@dataclass(frozen=True)
class Outlook:
    """What more training would bring; `sentence` says it in plain words with its numbers.

    evidence: step (the last one measured), since (about half of it), best_step (of the lowest held-out error), at_rest
    (the learning rate has come down), and of held_out_error, train_error and kernel_distance each the value at `step`,
    `_before` at `since`, and `_gain` (share by which a doubling of the steps lowers it, negative where it rises). None
    for what is not known.
    """

    verdict: Verdict
    sentence: str
    evidence: dict[str, float | int | bool | None]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def outlook_of(run: Path) -> Outlook:
    """The outlook of a run, finished or not, from its metrics, its journal and its pictures' number."""
    held_out = finished = None
    try:
        held_out = int(read_json(run / "data" / "data.json")["held_out"])
        segments = Journal(run / "journal.jsonl").segments("denoiser")
        records = list(read_lines(run / "metrics.jsonl"))
        finished = bool(segments) and _last_step(records) == segments[-1].end
    except (CorruptFileError, OSError, KeyError, TypeError, ValueError):
        records = list(read_lines(run / "metrics.jsonl"))
    return outlook(records, held_out=held_out, finished=finished)


def outlook(
    records: Iterable[Mapping[str, Any]], *, held_out: int | None = None, finished: bool | None = None
) -> Outlook:
    """Judge a run by the records of its metrics.jsonl.

    `held_out`: how many pictures are held out; `finished`: whether all the steps that were planned are taken (None:
    what the learning rate tells).
    """
    mine = [record for record in records if record.get("stage") == "denoiser"]
    curves = {name: curve_of(mine, name) for name in (*ERRORS, SCORE)}
    evidence = _evidence(mine, curves, finished)
    errors = curves["held_out_error"] or curves["train_error"]
    if len(errors) < 2:
        many = f"one validation so far, at step {min(errors):,}" if errors else "no validation yet"
        return Outlook("too early", f"Too early to tell: {many}, and a trend takes two.", evidence)
    if _overfits(curves, evidence, held_out):
        return Outlook("overfits", _by_heart(evidence, curves), evidence)
    return _trend(curves, evidence)


def _trend(curves: Mapping[str, Curve], evidence: dict[str, Any]) -> Outlook:
    """The verdict where held-out pictures, if there are any, do not suffer."""
    name = "held_out_error" if curves["held_out_error"] else "train_error"
    gain, score_gain = evidence[f"{name}_gain"], evidence[f"{SCORE}_gain"] or 0.0
    said = f"from step {evidence['since']:,} to {evidence['step']:,} {_change(evidence, name)}"
    if evidence[f"{SCORE}_gain"] is not None:
        said += f", {_change(evidence, SCORE)}"
    if score_gain > SCORE_GAIN or (gain > GAIN and score_gain > -SCORE_GAIN):
        known = "" if curves["held_out_error"] else " No picture is held out: how much of it is memory cannot be told."
        more = " Twice as long may bring as much again." if evidence["at_rest"] else ""
        return Outlook("more helps", f"More training helps: {said}.{more}{known}", evidence)
    if not evidence["at_rest"]:
        words = f"Too early to tell: {said}, and the learning rate, whose fall brings most at the end, is still high."
        return Outlook("too early", words, evidence)
    by_heart = ""
    if name == "held_out_error" and (evidence["train_error_gain"] or 0.0) > GAIN:
        by_heart = f" What it still learns it learns by heart: {_change(evidence, 'train_error')}."
    advice = "Other or more pictures, a larger network or a better autoencoder would change more than time."
    return Outlook("little left", f"Little is left to gain: {said}.{by_heart} {advice}", evidence)


def _overfits(curves: Mapping[str, Curve], evidence: Mapping[str, Any], held_out: int | None) -> bool:
    """Whether held-out pictures suffer from what is learned of the training pictures."""
    held, trained, best = curves["held_out_error"], curves["train_error"], evidence["best_step"]
    if not held or best not in trained or evidence["step"] not in trained:
        return False
    rise = RISE * math.sqrt(max(1.0, MANY / max(held_out or MANY, 1)))
    return held[evidence["step"]] > (1 + rise) * held[best] and trained[evidence["step"]] < trained[best]


def _by_heart(evidence: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    best, held, trained = evidence["best_step"], curves["held_out_error"], curves["train_error"]
    words = (
        f"It learns its pictures by heart: since step {best:,} the error on held-out pictures has risen from "
        f"{held[best]:.3g} to {evidence['held_out_error']:.3g}, while on training pictures it fell from "
        f"{trained[best]:.3g} to {evidence['train_error']:.3g}."
    )
    if (evidence[f"{SCORE}_gain"] or 0.0) > SCORE_GAIN:
        words += (
            f" More time still makes what it knows look better ({_change(evidence, SCORE)}), not what is new to it."
        )
    return words + " For new things more pictures help, not more time."


def _change(evidence: Mapping[str, Any], name: str) -> str:
    """What became of a measure."""
    before, now = evidence[f"{name}_before"], evidence[name]
    verb = "fell" if now < before else "rose"
    what = f"the error on {ERRORS[name]}" if name in ERRORS else "the kernel distance of its samples"
    return f"{what} {verb} from {before:.3g} to {now:.3g}"


def _evidence(records: list[Mapping[str, Any]], curves: Mapping[str, Curve], finished: bool | None) -> dict[str, Any]:
    held, rates = curves["held_out_error"], curve_of(records, "lr")
    fallen = bool(rates) and rates[max(rates)] < AT_REST * max(rates.values())
    facts: dict[str, Any] = {
        "step": max((step for curve in curves.values() for step in curve), default=None),
        "since": None,
        "best_step": min(held, key=lambda step: held[step]) if held else None,
        "at_rest": fallen if finished is None else finished,
    }
    since = facts["since"] = _half(curves)
    for name, curve in curves.items():
        facts |= {name: curve[max(curve)] if curve else None, f"{name}_before": None, f"{name}_gain": None}
        if since in curve and since < max(curve):
            facts |= {f"{name}_before": curve[since], f"{name}_gain": _gain(curve, since)}
    return facts


def _half(curves: Mapping[str, Curve]) -> int | None:
    """The step before the last one that is nearest to half of it; one with a score, if there are such."""
    errors = sorted(curves["held_out_error"] or curves["train_error"])
    scored = [step for step in errors if step in curves[SCORE]]
    steps = scored if len(scored) > 1 else errors
    return min(steps[:-1], key=lambda step: abs(math.log(max(step, 1) * 2 / steps[-1])), default=None)


def _gain(curve: Curve, since: int) -> float:
    """The share by which a doubling of the steps lowers the values, at the pace since then: 1 - ratio^(1 / doublings).

    An unbiased distance may be below zero, where ratios say nothing: as good as it gets.
    """
    last, before, now = max(curve), curve[since], curve[max(curve)]
    if before <= 0:
        return 0.0
    doublings = math.log2(last / max(since, 1))
    return 1 - max(now / before, 0.0) ** (1 / max(doublings, 0.1))


def curve_of(records: Iterable[Mapping[str, Any]], name: str) -> Curve:
    """Finite values by step; of a step that was recorded twice, the last."""
    found = {}
    for record in records:
        value = record.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found[int(record["step"])] = float(value)
    return dict(sorted(found.items()))


def _last_step(records: Iterable[Mapping[str, Any]]) -> int:
    return max((int(record["step"]) for record in records if record.get("stage") == "denoiser"), default=0)
