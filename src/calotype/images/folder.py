"""A folder of pictures, by the conventions of Hugging Face's *imagefolder*.

Captions come from `metadata.jsonl` or `metadata.csv` (columns file_name, text and/or label), else from a `.txt` file
beside the picture; labels from the metadata, else from the sub-folder a picture lies in, once there are two different
ones. When everything lies under folders called train, test or validation, they say the split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from calotype.core.errors import UserError
from calotype.images.decode import MAX_BYTES, UnreadablePictureError
from calotype.images.metadata import METADATA_NAMES, Row, read_metadata
from calotype.images.source import Picture, Source, Split

# .heic is listed so that such files are counted among the refused instead of being passed over in silence.
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "dev", "held-out", "held_out"), "held-out"),
}
_MAX_SIDECAR = 64 * 2**10
_MEND = "give a folder with .jpg, .png or .webp pictures in it (sub-folders are searched)"

Reader = Callable[[], bytes]


def folder_source(path: Path) -> Source:
    """The pictures of a folder and its sub-folders. Links to files are followed, links to folders are not."""
    readers: dict[str, Reader] = {}
    unread: list[str] = []
    for folder, subfolders, files in os.walk(path, onerror=lambda error: unread.append(f"{error.filename}")):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in files:
            file = Path(folder, name)
            # a pipe or device would block the reader, so only what is (or points to) a regular file counts;
            # a link that points nowhere is kept, to be counted among the refused
            if not is_hidden(name) and (file.is_file() or not file.exists()):
                readers[file.relative_to(path).as_posix()] = partial(read_file, file)
    if unread and not readers:
        raise UserError(f"{path}: cannot be read", "check its permissions")
    source = describe(readers, str(path))
    return replace(source, notes=(*source.notes, *(f"{name}: folder cannot be read, passed over" for name in unread)))


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a picture file; one above `limit` is refused before it fills the memory."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UnreadablePictureError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise UnreadablePictureError(f"larger than {limit >> 20} MiB")
    return content


def is_hidden(name: str) -> bool:
    """Files that systems leave behind: dot files, and the folder macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def describe(readers: Mapping[str, Reader], where: str) -> Source:
    """A Source from file names ('/'-separated, relative) and how to read each: captions, labels, split.

    Folders and archives both come through here. Raises UserError when there is no picture, or metadata that is broken
    or names none of the pictures.
    """
    names = sorted(name for name in readers if PurePosixPath(name).suffix.lower() in SUFFIXES)
    if not names:
        raise UserError(f"{where}: no pictures in it", _MEND)
    rows, notes = _metadata(readers, names, where)
    labels, splits = _from_folders(names)
    if any(row.label is not None for row in rows.values()):
        labels = {name: row.label for name, row in rows.items()}
    pictures = []
    for name in names:
        caption = rows[name].text if name in rows else _sidecar(readers, name)
        pictures.append(Picture(_printable(name), readers[name], caption, labels.get(name), splits.get(name)))
    return Source(where, pictures, notes=notes)


def _metadata(readers: Mapping[str, Reader], names: list[str], where: str) -> tuple[dict[str, Row], tuple[str, ...]]:
    """Rows of all metadata files by picture name, and a note for rows whose picture is not there."""
    rows: dict[str, Row] = {}
    for file in sorted(name for name in readers if PurePosixPath(name).name in METADATA_NAMES):
        try:
            rows |= read_metadata(file, readers[file]())
        except UnreadablePictureError as error:
            raise UserError(f"{where}/{file}: {error}", "mend or remove it") from None
    matched = {name: rows[name] for name in names if name in rows}
    if rows and not matched:
        example = next(iter(rows))
        raise UserError(
            f"{where}: the metadata names no picture that is there (its first is {example!r})",
            "file_name must be the picture's path relative to the metadata file",
        )
    missing = len(rows) - len(matched)
    notes = (f"{missing} of {len(rows)} metadata rows name a picture that is not there",) if missing else ()
    return matched, notes


def _from_folders(names: list[str]) -> tuple[dict[str, str | None], dict[str, Split]]:
    """Labels (the folder next to the picture) and splits (the top folders, if all are called so) by name."""
    parts = {name: PurePosixPath(name).parts for name in names}
    depth = len(PurePosixPath(os.path.commonpath([f"/{PurePosixPath(name).parent}" for name in names])).parts) - 1
    tops = {path[depth] if len(path) > depth + 1 else "" for path in parts.values()}
    splits: dict[str, Split] = {}
    if all(top.lower() in _SPLITS for top in tops) and any(_SPLITS[top.lower()] == "train" for top in tops):
        splits = {name: _SPLITS[path[depth].lower()] for name, path in parts.items()}
        depth += 1
    labels = {name: path[-2] if len(path) > depth + 1 else None for name, path in parts.items()}
    distinct = {label for label in labels.values() if label is not None}
    return (labels if len(distinct) > 1 else {}), splits


def _printable(name: str) -> str:
    """File systems allow names that are not UTF-8; in an index and on a screen their odd bytes show as '?'."""
    return name.encode("utf-8", errors="replace").decode()


def _sidecar(readers: Mapping[str, Reader], name: str) -> str | None:
    """The text of `picture.txt` beside `picture.jpg`, white space collapsed; None without one."""
    reader = readers.get(str(PurePosixPath(name).with_suffix(".txt")))
    if reader is None:
        return None
    try:
        text = reader()[:_MAX_SIDECAR]
    except UnreadablePictureError:
        return None
    return " ".join(text.decode("utf-8", errors="replace").removeprefix("\ufeff").split()) or None
