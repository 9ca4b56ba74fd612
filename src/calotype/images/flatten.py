"""Whatever colours a picture is stored in -> 8-bit RGB without transparency. Needs Pillow and numpy alone."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

_BAND = 256  # rows of a wide picture held as floats at a time
_PROFILED = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}  # a colour profile's space, and Pillow's mode of it


def resizable(image: Image.Image, kind: str) -> Image.Image:
    """`image`, of a file in format `kind`, in a mode that can be resized without harm: L, RGB, RGBa or CMYK.

    Raises ValueError for pixel values that are not finite.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image, kind)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA").convert("RGBa")  # premultiplied: what is transparent lends its colour to nobody
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def flattened(square: Image.Image, profile: bytes | None, background: tuple[int, int, int]) -> Image.Image:
    """A resized picture in RGB: its colour `profile` made sRGB, what is transparent showing `background`.

    Done to the small square, where it costs next to nothing.
    """
    alpha = None
    if square.mode == "RGBa":
        square = square.convert("RGBA")
        alpha, square = square.getchannel("A"), square.convert("RGB")
    if (to_srgb := _to_srgb(profile, square.mode)) is not None:
        square = to_srgb.apply(square)
    square = square.convert("RGB")
    if alpha is None:
        return square
    canvas = Image.new("RGB", square.size, background)
    canvas.paste(square, mask=alpha)
    return canvas


def _eight_bits(image: Image.Image, kind: str) -> Image.Image:
    """Grey of more than 8 bits (or float) in 8: 16 bits by 65535, other ranges by the smallest that holds them."""
    peak = float(image.getextrema()[1]) if image.mode in ("I", "F") else 65535.0  # type: ignore[arg-type]
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):  # these have no more
        top = 65535.0
    else:
        top = next((limit for limit in ((1.0,) if image.mode == "F" else ()) + (255.0, 65535.0) if peak <= limit), peak)
    grey = Image.new("L", image.size)
    clear = image.info.get("transparency")
    alpha = Image.new("L", image.size) if isinstance(clear, int) else None
    for y in range(0, image.height, _BAND):
        values = np.asarray(image.crop((0, y, image.width, min(y + _BAND, image.height))))
        if not np.isfinite(values).all():
            raise ValueError("pixel values that are not finite")
        scaled = (values.astype(np.float32) * np.float32(255.0 / top)).round().clip(0, 255).astype(np.uint8)
        grey.paste(Image.fromarray(scaled), (0, y))
        if alpha is not None:
            alpha.paste(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)), (0, y))
    return grey if alpha is None else Image.merge("LA", (grey, alpha))


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes | None, mode: str) -> ImageCmsTransform | None:
    """From `profile` to sRGB, for pictures of `mode`; None where nothing is to be done or can be.

    Photographs of telephones and prints name their colours by wider or other spaces than sRGB; taken as they are, the
    former come out pale and the latter (CMYK) garish. A broken profile is no reason to lose the picture.
    """
    if profile is None:
        return None
    try:
        from PIL import ImageCms

        read = ImageCms.ImageCmsProfile(BytesIO(profile))
        known = read.profile.profile_description or ""
        if _PROFILED.get(read.profile.xcolor_space.strip()) != mode or "sRGB" in known:
            return None
        return ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # no ImageCms in this Pillow, or a profile that is damaged
        return None
