"""What a prepared set holds, as plain figures: files, classes, captions, colours, copies, the split."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.core.files import read_json, read_lines
from calotype.images.dataset import DUPLICATES, FACTS, QUARANTINE, PictureSet
from calotype.images.mirroring import mirror_matters
from calotype.images.quarantine import group_reasons

LONG_WORDS = 180  # about 256 tokens, beyond which a text encoder reads nothing
EXAMPLES = 5

_COLOUR = 24  # levels between the channels of a pixel that one calls coloured; encoders tint grey ones by less
_CHUNK = 2**22  # values looked at at a time, in whole pictures
_PLAIN_WORDS = frozenset(
    """a an and are as at by for from has in into is it its near of off on or out over that the their there this to two
    under up very view was were which while who with""".split()  # noqa: SIM905
)


def survey(pictures: PictureSet, folder: Path) -> dict[str, Any]:
    """Figures of the set that `prepare` left in `folder`, fit for JSON; memory does not grow with the pictures."""
    facts = read_json(folder / FACTS)
    refused = list(read_lines(folder / QUARANTINE))
    reason = mirror_matters(pictures.captions, pictures.classes)
    return {
        "source": pictures.source,
        "attribution": pictures.attribution,
        "licence": pictures.licence,
        "size": pictures.size,
        "files": {
            "all": facts["files"] + facts["dropped"] + pictures.refused,
            "readable": facts["files"] + facts["dropped"],
            "refused": pictures.refused,
        },
        "pictures": len(pictures),
        "originals": facts["originals"],
        "refused": [
            {"count": group.count, "example": group.example, "reason": group.reason} for group in group_reasons(refused)
        ],
        "copies": {
            "equal": pictures.equal_copies,
            "near": pictures.near_copies,
            "dropped": pictures.dropped,
            "across_split": facts["copies_across_split"],
            "examples": _copy_examples(folder),
        },
        "classes": _classes(pictures),
        "captions": _captions(pictures),
        "colour": _colour(pictures),
        "split": {"train": len(pictures.train_ids), "held_out": len(pictures.held_out_ids)},
        "mirrored": {"yes": not reason, "reason": reason},
    }


def _copy_examples(folder: Path) -> list[list[str]]:
    """The first few copies, near ones first, each with what it copies."""
    copies = list(read_lines(folder / DUPLICATES))
    copies.sort(key=lambda copy: copy["kind"] != "near")
    return [[copy["path"], copy["copy_of"]] for copy in copies[:EXAMPLES]]


def _classes(pictures: PictureSet) -> dict[str, Any]:
    """How many pictures each class has, the largest first, and how many have none."""
    counts = Counter(label for label in pictures.labels if label is not None)
    return {
        "count": len(counts),
        "unlabelled": len(pictures) - counts.total(),
        "pictures": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
    }


def _captions(pictures: PictureSet) -> dict[str, Any]:
    """How many captions there are, how long, how varied, and what they speak of."""
    counts = Counter(caption for caption in pictures.captions if caption)
    if not counts:
        return {"count": 0, "missing": len(pictures)}
    words: Counter[str] = Counter()
    lengths = np.empty(len(counts), dtype=np.int64)
    for place, (caption, times) in enumerate(counts.items()):
        lengths[place] = len(caption.split())
        for word in set(re.findall(r"[^\W\d_]{2,}", caption.lower())) - _PLAIN_WORDS:
            words[word] += times
    repeats = np.fromiter(counts.values(), np.int64, len(counts))
    return {
        "count": counts.total(),
        "missing": len(pictures) - counts.total(),
        "distinct": len(counts),
        "words_median": int(np.median(np.repeat(lengths, repeats))),
        "words_max": int(lengths.max()),
        "too_long": int(repeats[lengths > LONG_WORDS].sum()),
        "most_frequent": list(counts.most_common(1)[0]),
        "frequent_words": dict(words.most_common(12)),
    }


def _colour(pictures: PictureSet) -> dict[str, Any]:
    """Mean and standard deviation of red, green and blue (levels 0 to 255), and counts of pictures with little to see.

    grey: no colour worth the name; dark, light: nearly all black, or white; flat: hardly anything in it.
    """
    sums, squares = np.zeros(3), np.zeros(3)
    found: dict[str, list[NDArray[np.int64]]] = {"grey": [], "dark": [], "light": [], "flat": []}
    step = max(1, _CHUNK // (3 * pictures.size**2))
    for at in range(0, len(pictures), step):
        pixels = pictures.pixels[at : at + step].numpy().astype(np.float32)
        means, second = pixels.mean(axis=(2, 3)), np.square(pixels).mean(axis=(2, 3))
        sums += means.sum(axis=0, dtype=np.float64)
        squares += second.sum(axis=0, dtype=np.float64)
        spread = np.sqrt(np.maximum(second - means**2, 0)).max(axis=1)
        coloured = (pixels.max(axis=1) - pixels.min(axis=1) > _COLOUR).mean(axis=(1, 2))
        seen = {
            "grey": coloured < 0.01,
            "dark": means.max(axis=1) < 16,
            "light": means.min(axis=1) > 239,
            "flat": spread < 6,
        }
        for kind, which in seen.items():
            found[kind].append(at + which.nonzero()[0])
    mean = sums / len(pictures)
    rows = {kind: np.concatenate(parts).tolist() for kind, parts in found.items()}
    return {
        "mean": mean.round(1).tolist(),
        "std": np.sqrt(np.maximum(squares / len(pictures) - mean**2, 0)).round(1).tolist(),
        **{kind: len(these) for kind, these in rows.items()},
        "examples": {kind: [pictures.names[row] for row in these[:EXAMPLES]] for kind, these in rows.items()},
    }
