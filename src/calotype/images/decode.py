"""Any picture file -> RGB bytes of one size. Needs Pillow and numpy alone: a decoding process starts at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from calotype.images.flatten import flattened, resizable

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # 256 MB as RGBA: a larger claim is a bomb or belongs on a bigger machine
MAX_BYTES = 256 * 2**20  # of one encoded file
VERSION = 2  # of the pixels: raised when the same file and Transform come to give other ones

_MAX_WORDS = 160
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
# How files begin that lie among pictures and cannot be used, and what to say of them.
_STRANGERS = (
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "HEIC, which is not decoded: convert it to JPEG"),
    (
        rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF.{4}WEBP|.{4}ftypavi",
        "its header is damaged or of a rare kind",
    ),
    (rb"(?i:\s*<(!DOCTYPE html|html))", "a web page, not a picture: perhaps its download failed"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the picture: run 'git lfs pull'"),
)


@dataclass(frozen=True)
class Transform:
    """What is done to every file: `crops` squares of it (the middle one, or at random places) at (size, size)."""

    size: int
    crop: str = "centre"
    crops: int = 1
    background: tuple[int, int, int] = (255, 255, 255)


@dataclass(frozen=True)
class Decoded:
    """The squares of one file, uint8 (k, 3, size, size), and what the file was: size upright, `mode` in Pillow's words.

    k is 1, or up to `crops` of the Transform. `frames` is more than 1 for an animation, of which the first is taken.
    """

    pixels: NDArray[np.uint8]
    format: str
    mode: str
    width: int
    height: int
    frames: int


class UnreadablePictureError(Exception):
    """This file is not a picture that can be used; the message is the reason, fit for a list."""


def decode_picture(
    content: bytes, size: int, *, background: tuple[int, int, int] = (255, 255, 255)
) -> NDArray[np.uint8]:
    """The file's middle square as RGB uint8 (3, size, size). Raises UnreadablePictureError with the reason."""
    return decode(content, Transform(size, background=background)).pixels[0]


def decode(content: bytes, transform: Transform) -> Decoded:
    """The file's first frame in RGB: upright, over `background`, squares of its shorter side resized to `size`.

    The format is read from the content, never from a name. Raises UnreadablePictureError with the reason.
    """
    if not content:
        raise UnreadablePictureError("the file is empty")
    try:
        with Image.open(BytesIO(content), formats=_formats()) as image:
            return _decoded(image, content, transform)
    except UnreadablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnreadablePictureError(_unknown(content)) from None
    except Image.DecompressionBombError:
        raise UnreadablePictureError(f"too large: more than {MAX_PIXELS:,} pixels are not decoded") from None
    except MemoryError:
        raise UnreadablePictureError("decoding it takes more memory than is allowed") from None
    except Exception as error:  # decoders raise nearly anything on corrupt bytes, and each of them means "unreadable"
        words = " ".join(str(error).split())[:_MAX_WORDS]  # some quote the file
        raise UnreadablePictureError(f"corrupt: {words or type(error).__name__}") from error


def _decoded(image: Image.Image, content: bytes, transform: Transform) -> Decoded:
    size, mode, kind = transform.size, image.mode, image.format or ""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadablePictureError(f"{width} x {height} pixels: more than {MAX_PIXELS:,} are not decoded")
    # A JPEG is decoded at 1/2, 1/4 or 1/8 while that still holds twice the wanted resolution: large
    # photographs then cost a fraction of the time and memory.
    image.draft("RGB", (2 * size, 2 * size))
    image.load()
    turn = _turn(image)
    profile = image.info.get("icc_profile")
    ready = resizable(image, kind)
    squares = []
    for place in _places(ready.size, content, transform):
        square = flattened(_square(ready, place, size), profile, transform.background)
        # turned when it is small: quicker, and large pictures are not held twice
        squares.append(np.asarray(square if turn is None else square.transpose(turn)))
    if turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
        width, height = height, width
    pixels = np.ascontiguousarray(np.stack(squares).transpose(0, 3, 1, 2))
    return Decoded(pixels, kind, mode, width, height, _frames(image))


def _unknown(content: bytes) -> str:
    """Why a file that no decoder takes is refused."""
    for beginning, reason in _STRANGERS:
        if re.match(beginning, content, re.DOTALL):
            return reason
    return f"not a picture in a known format ({', '.join(_formats())})"


@lru_cache
def _formats() -> tuple[str, ...]:
    """The allowed formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; a broken EXIF block is no reason to lose the picture."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # nearly anything, see above
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _frames(image: Image.Image) -> int:
    """How many frames there are; damage after the first one does not matter."""
    try:
        return max(int(getattr(image, "n_frames", 1)), 1)
    except Exception:
        return 1


def _places(dimensions: tuple[int, int], content: bytes, transform: Transform) -> list[int]:
    """Where the squares begin along the longer side.

    Random ones are drawn from the content and the crop's number alone. Places nearer than a pixel of the result are
    one place: a square picture has one crop.
    """
    side = min(dimensions)
    room = max(dimensions) - side
    if transform.crop == "centre":
        return [room // 2]
    found: dict[int, int] = {}
    digest = sha256(content).digest()
    for number in range(transform.crops):
        drawn = sha256(digest + number.to_bytes(4, "big")).digest()
        place = (room + 1) * int.from_bytes(drawn[:8], "big") >> 64
        found.setdefault(place * transform.size // side, place)
    return list(found.values())


def _square(image: Image.Image, place: int, size: int) -> Image.Image:
    """The square that begins at `place`, resized to (size, size) with an antialiasing bicubic filter."""
    width, height = image.size
    side = min(width, height)
    left, top = (place, 0) if width > height else (0, place)
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    # reducing_gap averages whole blocks first when the picture is many times larger: same look, bounded cost.
    gap = 3.0 if side > 6 * size else None
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=gap)
