"""Which pictures are held out: said by each file's content, so that adding pictures never moves one across."""

from __future__ import annotations

from calotype.images.source import Split

HELD_OUT_SHARE = 0.05
ALWAYS_HELD_OUT_FROM = 8  # a set of this many pictures has at least one held out


def held_out_split(hashes: list[str], wishes: list[Split | None]) -> list[Split]:
    """Who is held out, from the sha256 of each file alone: the 5 % whose hash, read as a fraction, is below .05.

    A picture's side therefore does not depend on the others, copies share a side, and `wishes` (a source's own split)
    override. The one exception is for small sets: from eight pictures on, the smallest hash is held out if nobody
    is; and the largest is trained on if everybody else is held out.
    """
    fractions = [int(value[:13], 16) / 16**13 for value in hashes]
    split: list[Split] = [
        wish or ("held-out" if fraction < HELD_OUT_SHARE else "train")
        for wish, fraction in zip(wishes, fractions, strict=True)
    ]
    free = [row for row, wish in enumerate(wishes) if wish is None]
    if "held-out" not in split and len(split) >= ALWAYS_HELD_OUT_FROM and free:
        smallest = min(fractions[row] for row in free)
        split = ["held-out" if row in free and fractions[row] == smallest else split[row] for row in range(len(split))]
    if "train" not in split and split:
        split[max(range(len(split)), key=fractions.__getitem__)] = "train"
    return split
