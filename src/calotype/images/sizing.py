"""Which size to train at, when the user does not say."""

from __future__ import annotations

from contextlib import closing
from statistics import median

from calotype.images.decode import Transform
from calotype.images.decoding import decode_pictures
from calotype.images.source import Data, open_source

LOOKED_AT = 32
SMALL, LARGE = 64, 128


def natural_size(data: Data) -> int:
    """128 if the pictures' shorter sides allow it (median of a few), else 64; drawings of "openmoji" are 64."""
    if isinstance(data, str) and data == "openmoji":
        return SMALL
    pictures = open_source(data, size=SMALL).pictures
    some = pictures[:: max(1, -(-len(pictures) // LOOKED_AT))]
    with closing(decode_pictures(some, Transform(SMALL))) as outcomes:
        decoded = [outcome.decoded for _, outcome in outcomes]
    sides = [min(found.width, found.height) for found in decoded if found is not None]
    return LARGE if sides and median(sides) >= LARGE else SMALL
