"""The report's sections on how good the pictures are and whether they are copies, from an evaluation's record."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from calotype.inspection.report.drawing import settings_in_words
from calotype.inspection.report.page import Section, folded, note, section, table
from calotype.inspection.report.scale import Scale, Shape, key_of

Record = Mapping[str, Any]

_DISTANCES = {  # key: (name, what it is, better, share)
    "kernel": ("Kernel distance", "how far the crowd of made pictures is from real ones; 0 is none", "low", False),
    "frechet_infinity": (
        "Fréchet distance, endless N",
        "another measure of the same, carried on to any number",
        "low",
        False,
    ),
    "frechet": ("Fréchet distance at this N", "grows as N shrinks: compare at one N only", "low", False),
    "precision": ("Precision", "made pictures that lie among real ones", "high", True),
    "recall": ("Recall", "real pictures that lie among made ones", "high", True),
    "density": ("Density", "how thickly real pictures lie around made ones; 1 as around real ones", "high", False),
    "coverage": ("Coverage", "real pictures with a made one close by", "high", True),
}
_VERDICTS = {
    "memory": "It mostly remembers",
    "partly": "Some of it is memory",
    "new": "Its pictures are new",
    "unknown": "Whether it remembers cannot be told",
}
_HOW_TO_READ = (
    "Every number is an estimate from a limited number of pictures (N); in 19 of 20 cases its interval holds the truth."
)


def scores_section(record: Record | None) -> Section | None:
    """Distances and fidelity on their scales, each beside the best that could be had."""
    if record is None:
        return None
    groups = {
        "As a crowd": _distances(record.get("distances") or {}),
        "One by one": _fidelity(record.get("fidelity") or {}),
    }
    every = [scale for scales in groups.values() for scale in scales]
    if not every:
        return None
    blocks = [
        f'<h3>{name}</h3>\n<div class="scores">\n{"".join(scale.html() for scale in scales)}</div>\n'
        for name, scales in groups.items()
        if scales
    ]
    return section(
        "How good they are", _HOW_TO_READ, key_of(every), *blocks, _classes(record), note(how_scored(record))
    )


def memory_section(record: Record | None) -> Section | None:
    """The verdict in plain words, and what it rests on."""
    told = (record or {}).get("memorization")
    if not record or not told:
        return None
    summary = escape(told.get("summary") or "There are too few pictures to compare with.")
    spaces = {"By their pixels": told.get("pixels"), "By their features": told.get("features")}
    blocks, every = [], []
    for name, found in spaces.items():
        scales = _memory(found) if found else []
        every += scales
        if scales:
            blocks.append(f'<h3>{name}</h3>\n<div class="scores">\n{"".join(s.html() for s in scales)}</div>\n')
    rows = [(_asked_for(near), _nearest(near)) for near in record.get("nearest") or []]
    listed = folded("The nearest training picture of each of the first samples", table("Nearest", rows)) if rows else ""
    return section(
        _VERDICTS.get(told.get("verdict"), _VERDICTS["unknown"]),
        f'<span class="verdict">{summary}</span>',
        key_of(every, "newer") if every else "",
        *blocks,
        listed,
        note(how_scored(record)),
    )


def memory_in_short(record: Record | None) -> str:
    """The verdict's own sentence, for the top of the page."""
    summary = str(((record or {}).get("memorization") or {}).get("summary") or "")
    return f"{summary.split('. ', 1)[0].rstrip('.')}." if summary else ""


def how_scored(record: Record) -> str:
    """All that the numbers depend on, as small print."""
    made, extractor = record["made"], record["extractor"]
    asked = {"captions": "of training captions", "classes": "of its classes", "nothing": "of nothing in particular"}
    first, count = made["seed"], made["count"]
    each = f", {made['num_images']} for each" if made.get("num_images", 1) > 1 else ""
    return (
        f"{count:,} pictures {asked.get(made['asked'], '')}{each}, seeds {first:,} to {first + count - 1:,}; "
        f"{settings_in_words(made['sampling'], made['weights'])}; features of {extractor['name']} "
        f"(sha256 {extractor['sha256'][:12]})."
    )


def _distances(found: Mapping[str, Any]) -> list[Scale]:
    samples = found.get("samples") or {}
    beside: dict[Shape, tuple[str, Mapping[str, Any]]] = {
        "ceiling": ("reconstructions", found.get("ceiling") or {}),
        "floor": ("real", found.get("floor") or {}),
    }
    scales = []
    for key, (name, told, better, share) in _DISTANCES.items():
        if samples.get(key):
            marks = {shape: (called, of[key]["value"]) for shape, (called, of) in beside.items() if of.get(key)}
            scales.append(Scale(name, told, samples[key], "low" if better == "low" else "high", marks, share))
    return scales


def _fidelity(found: Mapping[str, Any]) -> list[Scale]:
    scales = []
    for key, of in (("captions", "training captions"), ("held_out_captions", "captions it never saw")):
        got = found.get(key)
        if not got:
            continue
        for n in (1, 5):
            marks: dict[Shape, tuple[str, float]] = {
                "ceiling": ("reconstructions", got[f"ceiling{n}"]["value"]),
                "chance": ("chance", got[f"chance{n}"]),
            }
            first = "is the likest" if n == 1 else "is among the five likest"
            told = f"its own picture {first} of {got['gallery']:,}"
            scales.append(Scale(f"Top {n}, {of}", told, got[f"top{n}"], "high", marks, share=True))
    if got := found.get("classes"):
        marks = {"chance": ("chance", got["chance"])}
        if got.get("ceiling"):
            marks["ceiling"] = ("reconstructions", got["ceiling"]["value"])
        if got.get("real"):
            marks["floor"] = ("real", got["real"]["value"])
        told = "most of its nearest pictures, seen through the autoencoder, are of that class"
        scales.append(Scale("The class asked for", told, got["right"], "high", marks, share=True))
    return scales


def _classes(record: Record) -> str:
    """Class by class, where there are classes."""
    got = (record.get("fidelity") or {}).get("classes")
    if not got or not got.get("by_class"):
        return ""
    rows = [
        (name, f"{100 * one['value']:.3g}% ({100 * one['low']:.3g} to {100 * one['high']:.3g}), N {one['count']:,}")
        for name, one in got["by_class"].items()
    ]
    return folded("Class by class", table("The class asked for", rows))


def _memory(found: Mapping[str, Any]) -> list[Scale]:
    baseline = found.get("baseline")
    marks: dict[Shape, tuple[str, float]] = {"floor": ("real", baseline["value"])} if baseline else {}
    scales = []
    if found.get("copies"):
        told = "as near to one training picture as copies are"
        scales.append(Scale("Copies", told, found["copies"], "low", marks, share=True))
    if found.get("nearer"):
        told = "chance that one lies nearer to the training set than an unseen real picture; one half is as new"
        half: dict[Shape, tuple[str, float]] = {"floor": ("real", 0.5)}
        scales.append(Scale("Nearer than new", told, found["nearer"], "low", half, share=True))
    if found.get("recalled"):
        told = "nearest training picture of all is the very one whose words were asked for"
        scales.append(Scale("Recalled", told, found["recalled"], "low", {}, share=True))
    return scales


def _asked_for(near: Mapping[str, Any]) -> str:
    return str(near.get("prompt") or near.get("label") or f"sample {near.get('place', near.get('seed', ''))}")


def _nearest(near: Mapping[str, Any]) -> str:
    return f"{near['name']}, distance {near['distance']:.2f}{', a copy' if near.get('copy') else ''}"
