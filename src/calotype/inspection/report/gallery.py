"""Pictures as plates of the page: which of a set to show, and how they are embedded."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from calotype.images.grid import to_pil
from calotype.inspection.report.drawing import evenly
from calotype.inspection.report.page import Plate

if TYPE_CHECKING:
    from PIL.Image import Image

    from calotype.images.dataset import PictureSet

LARGEST_SIDE = 192
"""Pictures are embedded no larger than this: twice what a wide screen shows them at."""
FILM_SIDE = 128
LOSSLESS_BYTES = 14_000
"""A picture whose PNG is larger is embedded as JPEG (quality 92), so that a page stays below 6 MB."""


def data_uri(image: Image, largest_side: int = LARGEST_SIDE) -> str:
    """The picture as a data URI: PNG where that is small, else JPEG without chroma subsampling."""
    if max(image.size) > largest_side:
        image = image.copy()
        image.thumbnail((largest_side, largest_side))
    image = image.convert("RGB")
    if max(image.size) <= LARGEST_SIDE and len(content := _encoded(image, "PNG", optimize=True)) <= LOSSLESS_BYTES:
        kind = "png"
    else:
        content, kind = _encoded(image, "JPEG", quality=92, subsampling=0), "jpeg"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _encoded(image: Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def plate(pixels: Tensor, alt: str, caption: str = "") -> Plate:
    """uint8 (3, h, w), or float in [-1, 1], for the page."""
    return Plate(data_uri(to_pil(pixels[None])[0]), alt, caption)


def sprite(frames: Tensor | Sequence[Image], alt: str, caption: str = "") -> tuple[Plate, int]:
    """Frames of one size, side by side in one picture, and how many; JPEG, as nobody looks at a frame for long."""
    from PIL import Image

    pictures = to_pil(frames)
    if isinstance(frames, Tensor):
        for picture in pictures:
            picture.thumbnail((FILM_SIDE, FILM_SIDE))
    width, height = pictures[0].size
    canvas = Image.new("RGB", (width * len(pictures), height))
    for k, picture in enumerate(pictures):
        canvas.paste(picture, (k * width, 0))
    return Plate(data_uri(canvas, max(canvas.size)), alt, caption), len(pictures)


def open_sheet(path: Path) -> Image | None:
    """A PNG that training left, or None where it is missing or damaged: a page is no worse for one picture less."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None


def name_of(pictures: PictureSet, row: int) -> str:
    """What a picture is called: its caption where it has one, else its file's name."""
    return pictures.captions[row] or pictures.names[row]


def showcase_ids(pictures: PictureSet, wanted: Sequence[str], count: int) -> list[int]:
    """Training pictures to show, one a caption: the `wanted` captions when the set has them, else an even choice."""
    ids = _first_of_each(pictures, pictures.train_ids)
    known = [ids[caption] for caption in wanted if caption in ids]
    return known[:count] if len(known) >= min(count, len(wanted)) > 0 else spread(pictures, list(ids.values()), count)


def held_out_ids(pictures: PictureSet, count: int) -> tuple[list[int], bool]:
    """Held-out pictures, one a caption, and whether no training picture bears these captions.

    Captions that training never saw come first; a set whose few captions recur (landscapes) has none, then any serve.
    """
    trained = _first_of_each(pictures, pictures.train_ids)
    every = _first_of_each(pictures, pictures.held_out_ids)
    unseen = [i for caption, i in every.items() if caption not in trained]
    enough = len(unseen) >= min(4, len(every))
    return spread(pictures, unseen if enough else list(every.values()), count), enough


def _first_of_each(pictures: PictureSet, ids: Tensor) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in ids.tolist():
        caption = pictures.captions[i]
        if caption:
            found.setdefault(caption, i)
    return found


def spread(pictures: PictureSet, ids: Sequence[int], count: int) -> list[int]:
    """`count` of `ids`, evenly spaced; where pictures have labels, every label in turn."""
    groups: dict[str | None, list[int]] = {}
    for i in ids:
        groups.setdefault(pictures.labels[i], []).append(i)
    share = math.ceil(count / max(len(groups), 1))
    turns = zip_longest(*(evenly(group, share) for group in groups.values()))
    return [i for i in chain.from_iterable(turns) if i is not None][:count]


def real_sheet(pictures: PictureSet, ids: Sequence[int]) -> list[list[Plate]]:
    """Real pictures, a column each."""
    return [[plate(pictures.pixels[i], f"Real picture: {name_of(pictures, i)}")] for i in ids]
