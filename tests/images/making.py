"""Pictures that the tests make: plain colours and quadrants, in any format, as bytes and as files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 60), (30, 60, 200), (240, 220, 40)


def quadrants(width: int = 32, height: int = 32) -> Image.Image:
    """Red, green above blue, yellow: every turn and mirror image of it looks different."""
    values = np.empty((height, width, 3), dtype=np.uint8)
    values[: height // 2, : width // 2], values[: height // 2, width // 2 :] = RED, GREEN
    values[height // 2 :, : width // 2], values[height // 2 :, width // 2 :] = BLUE, YELLOW
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise_png(seed: int, size: int = 16) -> bytes:
    """A small picture unlike any other seed's."""
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return encoded(Image.fromarray(values))


def fill(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


class Heard:
    """A reporter that remembers warnings and the last count."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.done = 0

    def stage(self, name: str, note: str = "") -> None:
        self.name = name

    def update(self, done: int, total: int | None, **_: Any) -> None:
        self.done = done

    def say(self, message: str) -> None:
        self.said = message

    def warn(self, message: str) -> None:
        self.warnings.append(message)
