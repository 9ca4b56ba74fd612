"""A folder of pictures and its sub-folders, by the conventions told in `layout`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from calotype.core.errors import UserError
from calotype.images.decode import MAX_BYTES, UnreadablePictureError
from calotype.images.layout import Reader, describe
from calotype.images.patterns import SHARD_SUFFIXES, SUFFIXES
from calotype.images.source import Source


def folder_source(path: Path) -> Source:
    """The pictures of a folder and its sub-folders. Links to files are followed, links to folders are not."""
    unread: list[str] = []
    readers: dict[str, Reader] = {file: partial(read_file, path / file) for file in _files(path, unread)}
    if unread and not readers:
        raise UserError(f"{path}: cannot be read", "check its permissions")
    source = describe({"": readers}, str(path))
    notes = [f"{name}: folder cannot be read, passed over" for name in unread]
    if shards := [file for file in readers if file.lower().endswith(SHARD_SUFFIXES)]:
        notes.append(f"{len(shards)} archives or .parquet files among the pictures are passed over: {min(shards)}")
    return replace(source, notes=(*source.notes, *notes))


def shards_in(path: Path) -> list[Path]:
    """The .parquet files or tar archives of a folder, in order; none where there is a picture among them."""
    shards = []
    for file in _files(path, []):
        if os.path.splitext(file)[1].lower() in SUFFIXES:
            return []
        if file.lower().endswith(SHARD_SUFFIXES):
            shards.append(file)
    return [path / file for file in sorted(shards)]


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


def _files(path: Path, unread: list[str]) -> Iterator[str]:
    """Regular files in and below `path`, relative to it, '/'-separated; `unread` collects folders that are closed."""
    for folder, subfolders, files in os.walk(path, onerror=lambda error: unread.append(f"{error.filename}")):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in files:
            file = os.path.join(folder, name)
            # a pipe or device would block the reader, so only what is (or points to) a regular file counts;
            # a link that points nowhere is kept, to be counted among the refused
            if not is_hidden(name) and (os.path.isfile(file) or not os.path.exists(file)):
                yield Path(file).relative_to(path).as_posix()
