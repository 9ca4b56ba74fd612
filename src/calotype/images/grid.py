"""Pictures to look at: grids with captions, strips, PNG files that carry their settings, GIFs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.files import write_bytes
from calotype.images.pixels import to_uint8

Pictures = Tensor | Sequence[Image.Image]

_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_CAPTION_LINES = 2


def to_pil(images: Pictures) -> list[Image.Image]:
    """Images float (n, 3, h, w) in [-1, 1], or uint8 pixels of that shape, or PIL pictures -> PIL RGB."""
    if not isinstance(images, Tensor):
        return [image.convert("RGB") for image in images]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"pictures are (n, 3, h, w), not {tuple(images.shape)}")
    pixels = to_uint8(images) if images.is_floating_point() else images
    rows = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    return [Image.fromarray(row) for row in rows]


def plot_images(
    images: Pictures,
    columns: int | None = None,
    captions: Sequence[str | None] | None = None,
    pad: int = 2,
    scale: int = 1,
) -> Image.Image:
    """A grid of pictures (default: about square), each with its caption below, enlarged `scale` times pixel by pixel.

    Captions take up to two lines and end in an ellipsis where they do not fit.
    """
    pictures = to_pil(images)
    if not pictures:
        raise ValueError("no pictures to plot")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    width = scale * max(picture.width for picture in pictures)
    height = scale * max(picture.height for picture in pictures)
    font = _font(max(9, min(14, width // 7)))
    line = sum(font.getmetrics())
    texts = [_fit(caption or "", font, width) for caption in captions or [""] * len(pictures)]
    deepest = max(map(len, texts))
    below = deepest * line + 2 if deepest else 0
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (pad + columns * (width + pad), pad + rows * (height + below + pad)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, picture in enumerate(pictures):
        left = pad + (number % columns) * (width + pad)
        top = pad + (number // columns) * (height + below + pad)
        if scale != 1:
            picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
        canvas.paste(picture, (left, top))
        for row, words in enumerate(texts[number]):
            indent = (width - font.getlength(words)) / 2
            draw.text((left + indent, top + height + 1 + row * line), words, fill=_INK, font=font)
    return canvas


def film_strip(
    frames: Pictures, captions: Sequence[str | None] | None = None, pad: int = 2, scale: int = 1
) -> Image.Image:
    """All frames side by side in one row."""
    return plot_images(frames, columns=len(frames), captions=captions, pad=pad, scale=scale)


def save_png(image: Image.Image, path: Path, settings: dict[str, Any] | None = None) -> None:
    """Write a PNG atomically, with `settings` as its text chunks "prompt", "seed" and "settings" (all of it, JSON).

    Without `settings`, those in `image.info["calotype"]` are written, where a pipeline leaves them.
    """
    settings = settings if settings is not None else image.info.get("calotype")
    chunks = PngInfo()
    if settings is not None:
        for key in ("prompt", "seed"):
            if settings.get(key) is not None:
                chunks.add_text(key, str(settings[key]))
        chunks.add_text("settings", json.dumps(settings))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    write_bytes(Path(path), buffer.getvalue())


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `save_png` wrote into a PNG; empty if it carries none."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            text = image.info.get("settings", "{}")
        settings = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a readable PNG with settings ({error})") from None
    return settings if isinstance(settings, dict) else {}


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int = 80) -> None:
    """Write frames as an endless GIF, atomically; the last one stays for a second or more."""
    if not frames:
        raise ValueError("no frames for the GIF")
    first, *others = (frame.convert("RGB") for frame in frames)
    durations = [milliseconds] * len(others) + [max(1000, milliseconds)]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    write_bytes(Path(path), buffer.getvalue())


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UserError("this Pillow has no FreeType, so it cannot write captions", "pip install --upgrade pillow")
    return font


def _fit(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The caption in at most two lines of `width` pixels, broken at spaces, shortened with an ellipsis."""
    lines: list[str] = []
    seen = " ".join(caption.split())[: _CAPTION_LINES * width]  # no letter is narrower than a pixel
    words = seen.split()
    while words and len(lines) < _CAPTION_LINES - 1:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        lines.append(_shorten(" ".join(words[:count]), font, width))
        words = words[count:]
    return [*lines, _shorten(" ".join(words), font, width)] if words else lines


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"
