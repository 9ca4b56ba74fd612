"""Any picture file -> RGB bytes of one size. Needs Pillow and numpy alone: a decoding process starts at once."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # 256 MB as RGBA: a larger claim is a bomb or belongs on a bigger machine
MAX_BYTES = 256 * 2**20  # of one encoded file

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Transform:
    """What is done to every file: `crops` squares of it (the middle one, or at random places) at (size, size)."""

    size: int
    crop: str = "centre"
    crops: int = 1
    background: tuple[int, int, int] = (255, 255, 255)


class UnreadablePictureError(Exception):
    """This file is not a picture that can be used; the message is the reason, fit for a list."""


def decode_picture(
    content: bytes, size: int, *, background: tuple[int, int, int] = (255, 255, 255)
) -> NDArray[np.uint8]:
    """The file's first frame as RGB uint8 (3, size, size): upright, over `background`, centre-cropped to a square.

    The format is read from the content, never from a name. The largest centred square is resized with antialiasing,
    so the shorter side becomes `size`. Raises UnreadablePictureError with the reason.
    """
    if not content:
        raise UnreadablePictureError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadablePictureError(f"{width} x {height} pixels: more than {MAX_PIXELS:,} are not decoded")
            # A JPEG is decoded at 1/2, 1/4 or 1/8 while that still holds twice the wanted resolution: large
            # photographs then cost a fraction of the time and memory.
            image.draft("RGB", (2 * size, 2 * size))
            image.load()
            upright = _upright(image)
            square = _square(_as_rgb(upright, background), size)
    except UnreadablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnreadablePictureError(f"not a picture in a known format ({', '.join(_formats())})") from None
    except Exception as error:  # decoders raise nearly anything on corrupt bytes, and each of them means "unreadable"
        raise UnreadablePictureError(f"corrupt: {error or type(error).__name__}") from error
    return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1))


@lru_cache
def _formats() -> tuple[str, ...]:
    """The allowed formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation asks; a broken EXIF block is no reason to lose the picture."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Any mode to RGB; transparency (alpha channel, palette entry or key colour) shows `background`."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*background, 255))
        canvas.alpha_composite(layer)
        return canvas.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits (or float) to RGB: 16 bits by 65535, other ranges by the smallest that holds them."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePictureError("pixel values that are not finite")
    peak = float(values.max())
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        ranges = (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0)
        top = next((limit for limit in ranges if peak <= limit), peak)
    grey = (values / top * 255.0).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized to (size, size) with an antialiasing bicubic filter."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    # reducing_gap averages whole blocks first when the picture is many times larger: same look, bounded cost.
    gap = 3.0 if side > 6 * size else None
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=gap)
