"""Which size to train at, when the user does not say."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from statistics import median

from calotype.images.decode import UnreadablePictureError
from calotype.images.source import open_source

LOOKED_AT = 32
SMALL, LARGE = 64, 128


def natural_size(data: str | Path) -> int:
    """128 if the pictures' shorter sides allow it (median of a few), else 64; drawings of "openmoji" are 64."""
    if data == "openmoji":
        return SMALL
    from PIL import Image

    pictures = open_source(data, size=SMALL).pictures
    sides = []
    for picture in pictures[:: -(-len(pictures) // LOOKED_AT)]:
        try:
            with Image.open(BytesIO(picture.read())) as image:
                sides.append(min(image.size))
        except (UnreadablePictureError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # the decoder will list it among the refused
    return LARGE if sides and median(sides) >= LARGE else SMALL
