"""Where pictures come from: a source lists them with what is known of each, and reads none until asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from calotype.core.errors import UserError
from calotype.core.hub import HUB_ID
from calotype.images.patterns import SHARD_SUFFIXES, SUFFIXES, is_pattern, matching

if TYPE_CHECKING:
    from numpy.typing import NDArray

Split = Literal["train", "held-out"]

POSSIBLE = (
    "give a folder of pictures, a .tar or .zip of one, WebDataset shards (.tar), .parquet, .npy or .npz, "
    "a data set of the Hugging Face hub (owner/name) or one saved by it, or openmoji"
)
_HUB_SCHEME = "hf://datasets/"


@dataclass(frozen=True, slots=True)
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


# What may be given as data: words or a path as on the command line; from Python also an array, or one's own Source.
Data: TypeAlias = "str | Path | NDArray[Any] | Source"


def open_source(data: Data, *, size: int) -> Source:
    """`data` as the user gave it: see `POSSIBLE`; from Python also an array or a Source. `size` is the side in pixels.

    Raises UserError where there is nothing, no picture, or a file that is broken or not safe to read.
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, str | os.PathLike):
        from calotype.images.arrays import array_source

        return array_source(data)
    if data == "openmoji":
        from calotype.images.openmoji import openmoji_source

        return openmoji_source(size)
    path = Path(os.path.expanduser(data))
    if os.path.isdir(path):
        return _open_folder(path)
    if os.path.isfile(path):
        return _open_file(path)
    if is_pattern(str(path)):
        return _open_several(matching(str(path)), str(data))
    if is_elsewhere(data):
        from calotype.images.hub_dataset import hub_source

        return hub_source(str(data).removeprefix(_HUB_SCHEME))
    raise UserError(f"{data}: no such file or folder", POSSIBLE)


def source_name(data: Data) -> str:
    """What was given as data, in words: those of the command line, or what an array or Source is called."""
    if isinstance(data, Source):
        return data.name
    if isinstance(data, str | os.PathLike):
        return str(data)
    from calotype.images.arrays import array_name

    return array_name(data)


def is_elsewhere(data: Data) -> bool:
    """Whether `data` is the id of a data set on the hub: opening it may ask the network."""
    if not isinstance(data, str | os.PathLike):
        return False
    hub_id = str(data).removeprefix(_HUB_SCHEME)
    if not HUB_ID.fullmatch(hub_id) or os.path.exists(os.path.expanduser(data)):
        return False
    # "photos/cats" beside a folder `photos`, or "photos/cats.zip", is a slip of the pen, and nobody else's business
    is_file = hub_id.lower().endswith((*SHARD_SUFFIXES, ".zip", ".npy", ".npz"))
    return hub_id != str(data) or not (is_file or os.path.isdir(os.path.dirname(hub_id)))


def _open_folder(path: Path) -> Source:
    from calotype.images.hub_dataset import is_saved, saved_source

    if is_saved(path):
        return saved_source(path)
    from calotype.images.folder import folder_source, shards_in

    shards = shards_in(path)
    return _open_several(shards, str(path)) if shards else folder_source(path)


def _open_file(path: Path) -> Source:
    """By its first bytes, as far as they tell; its name only says how it is meant."""
    try:
        with open(path, "rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})", "check its permissions") from error
    if magic == b"\x93NUMPY" or path.suffix.lower() in (".npy", ".npz"):
        from calotype.images.arrays import array_file_source

        return array_file_source(path)
    if magic.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        from calotype.images.parquet import parquet_source

        return parquet_source([path], str(path))
    if magic == b"ARROW1" or path.suffix.lower() == ".arrow":
        raise UserError(f"{path}: one part of a saved data set", f"give the folder it lies in, {path.parent}")
    if path.suffix.lower() in (*SUFFIXES, ".jsonl", ".csv", ".txt"):
        raise UserError(f"{path}: one file of a set", f"give the folder it lies in, {path.parent}")
    from calotype.images.archive import archive_source

    return archive_source(path)


def _open_several(paths: Sequence[Path], where: str) -> Source:
    """Parquet files, or WebDataset shards."""
    if any(path.suffix.lower() in SUFFIXES for path in paths):
        raise UserError(f"{where}: files of a set", f"give the folder they lie in, {paths[0].parent}")
    tables = [path for path in paths if path.suffix.lower() == ".parquet"]
    if tables and len(tables) < len(paths):
        raise UserError(
            f"{where}: .parquet files and others", "give one kind of them, as a pattern: 'FOLDER/*.parquet'"
        )
    if tables:
        from calotype.images.parquet import parquet_source

        return parquet_source(tables, where)
    from calotype.images.archive import shards_source

    return shards_source(paths, where)
