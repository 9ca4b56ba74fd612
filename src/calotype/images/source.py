"""Where pictures come from: a source lists them with what is known of each, and reads none until asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calotype.core.errors import UserError

Split = Literal["train", "held-out"]


@dataclass(frozen=True)
class Picture:
    """One picture file: `read()` gives its bytes; `split` is set where the source says so, else None."""

    name: str
    read: Callable[[], bytes]
    caption: str | None = None
    label: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Source:
    """Pictures in a fixed order, whose they are, and `notes` that the user should see when they are prepared."""

    name: str
    pictures: Sequence[Picture]
    attribution: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


def open_source(data: str | Path, *, size: int) -> Source:
    """`data` as the user wrote it: "openmoji", a folder, or a .tar or .zip of one. `size` is the side in pixels.

    Raises UserError where there is nothing, no picture, or an archive that is not safe to read.
    """
    if data == "openmoji":
        from calotype.images.openmoji import openmoji_source

        return openmoji_source(size)
    path = Path(os.path.expanduser(data))
    if os.path.isdir(path):
        from calotype.images.folder import folder_source

        return folder_source(path)
    if os.path.isfile(path):
        from calotype.images.archive import archive_source

        return archive_source(path)
    raise UserError(f"{data}: no such file or folder", "name a folder of pictures, a .tar or .zip of one, or openmoji")
