"""The card's scores: every number with its interval, beside the best and the least that it could have been."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from calotype.recipes import SamplingSection

DISTANCES = {
    "kernel": "kernel distance, 10⁻³",
    "frechet": "Fréchet distance",
    "frechet_infinity": "Fréchet distance, extrapolated to infinitely many pictures",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
FACTORS = {"kernel": 1000}
MOST_CLASSES = 12
FIDELITY = {
    "captions": "training captions",
    "held_out_captions": "held-out captions",
}


def score_lines(scores: Mapping[str, Any] | None, lab: Mapping[str, Any] | None, own: SamplingSection) -> list[str]:
    """Markdown of an evaluation's record, and of what the lab found; empty where there is neither."""
    lines: list[str] = []
    if scores:
        lines += [_how(scores), "", *_distances(scores["distances"]), *_fidelity(scores["fidelity"])]
        lines += _memorization(scores["memorization"])
        if _differ(scores["made"]["sampling"], own):
            lines += ["", "Its default settings were changed after these scores were taken."]
    if lab:
        lines += [*([""] if lines else []), f"Its default settings were chosen by measure: {lab['summary']}"]
    return lines


def _how(scores: Mapping[str, Any]) -> str:
    """What the numbers were taken of: without it they mean nothing."""
    made, extractor = scores["made"], scores["extractor"]
    sampling = made["sampling"]
    asked = {"captions": "of training captions", "classes": "of its classes"}.get(made["asked"], "asked for nothing")
    each = f", {made['num_images']} a prompt" if made["num_images"] > 1 else ""
    return (
        f"{made['count']:,} pictures {asked}{each}, from seed {made['seed']}, {made['weights']} weights, "
        f"{sampling['sampler']} in {sampling['num_steps']} steps, guidance {sampling['guidance_scale']:g}; "
        f"features: {extractor['name']} (sha256 {extractor['sha256'][:12]}). In brackets: 95 % intervals."
    )


def _distances(distances: Mapping[str, Any]) -> list[str]:
    """Samples beside reconstructions of real pictures and held-out real ones, each against training pictures."""
    columns = {
        "samples": "samples",
        "ceiling": "reconstructions (the best that its VAE allows)",
        "floor": "held-out pictures (the best there is)",
    }
    found = {name: distances[name] for name in columns if distances.get(name)}
    if "samples" not in found:
        return []
    known = {name: columns[name] for name in found}
    head = ["| against real pictures |" + "".join(f" {title} |" for title in known.values())]
    head += ["| --- |" + " --- |" * len(known)]
    return head + [
        f"| {title} |" + "".join(f" {_told(found[name].get(score), FACTORS.get(score, 1))} |" for name in known)
        for score, title in DISTANCES.items()
    ]


def _fidelity(fidelity: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, title in FIDELITY.items():
        if one := fidelity.get(name):
            for top, words in (("1", "comes first"), ("5", "is among the first five")):
                rows += [
                    f"| {title}: the own picture {words} of {one['gallery']:,} | {_told(one[f'top{top}'], 100)} "
                    f"| {_told(one[f'ceiling{top}'], 100)} | {100 * one[f'chance{top}']:.2g} |"
                ]
    if one := fidelity.get("classes"):
        ceiling = _told(one["ceiling"], 100)
        rows += [
            f"| drawn as the class asked for | {_told(one['right'], 100)} | {ceiling} | {100 * one['chance']:.2g} |"
        ]
    head = ["", "| as asked, in % | samples | reconstructions | by chance |", "| --- | --- | --- | --- |"]
    return [*head, *rows, *_by_class(fidelity.get("classes"))] if rows else []


def _by_class(agreed: Mapping[str, Any] | None) -> list[str]:
    """Each class beside the others, where they are few enough to read, and real pictures under the same eye."""
    if not agreed:
        return []
    each = agreed.get("by_class") or {}
    told = "; ".join(f"{name} {_told(one, 100)}" for name, one in each.items()) if 1 < len(each) <= MOST_CLASSES else ""
    sharp = [
        f"{_told(one, 100)} % of {called}"
        for one, called in ((agreed.get("among_real"), "the samples"), (agreed["real"], "held-out real pictures"))
        if one
    ]
    beside = f"Beside real pictures as they are, and not as the autoencoder gives them back: {', '.join(sharp)}."
    lines = " ".join(filter(None, [f"By class: {told} %." * bool(told), beside * bool(sharp)]))
    return ["", lines] if lines else []


def _memorization(memory: Mapping[str, Any]) -> list[str]:
    copies = [
        f"by {name} {_told(memory[name]['copies'], 100)} % of its pictures, "
        f"{_told(memory[name]['baseline'], 100)} % of real pictures that it never saw"
        for name in ("pixels", "features")
        if memory.get(name)
    ]
    told = f" Nearly a training picture: {'; '.join(copies)}." if copies else ""
    return ["", f"Memory: {memory['summary']}{told}"]


def _differ(sampling: Mapping[str, Any], own: SamplingSection) -> bool:
    now = own.model_dump(mode="json")
    return any(name in now and now[name] != value for name, value in sampling.items())


def _told(estimate: Mapping[str, float] | None, times: float = 1) -> str:
    """Value and interval with as many digits as the interval can tell apart."""
    if not estimate:
        return "-"
    value, low, high = (times * estimate[name] for name in ("value", "low", "high"))
    if not 0 < high - low < math.inf:
        return f"{value:.3g} [{low:.3g}, {high:.3g}]"
    digits = max(0, 1 - math.floor(math.log10(high - low)))
    told = [f"{round(number, digits) + 0.0:.{digits}f}" for number in (value, low, high)]  # + 0.0: no "-0"
    return f"{told[0]} [{told[1]}, {told[2]}]"
