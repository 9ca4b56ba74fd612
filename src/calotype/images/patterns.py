"""What files are called: the suffixes of pictures, the words for splits, and patterns that stand for several files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from calotype.core.errors import UserError

# .heic is listed so that such files are counted among the refused instead of being passed over in silence.
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
SHARD_SUFFIXES = (".parquet", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_SPLITS: dict[str, Literal["train", "held-out"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "dev", "held-out", "held_out"), "held-out"),
}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_MAX_FILES = 1_000_000


def splits_of(names: Sequence[str]) -> list[Literal["train", "held-out"]] | None:
    """The split of each name, if every one is called so ("train", "test", ...) and both sides are there.

    Data sets often come as "train" alone: that holds nothing out, and says nothing.
    """
    splits = [_SPLITS.get(name.lower()) for name in names]
    found = [split for split in splits if split is not None]
    return found if len(found) == len(names) and len(set(found)) == 2 else None


def splits_of_files(names: Sequence[str]) -> list[Literal["train", "held-out"]] | None:
    """As `splits_of`, by a word in the files' own names, "data/test-00000-of-00002.parquet", else in their folders'."""
    words = []
    for name in names:
        parts = reversed(re.split(r"[\\/]", name))
        found = (word for part in parts for word in re.split(r"[^a-z]+", part.lower()) if word in _SPLITS)
        words.append(next(found, ""))
    return splits_of(words)


def is_pattern(path: str) -> bool:
    return re.search(r"[*?\[{]", path) is not None


def matching(pattern: str) -> list[Path]:
    """The files of a pattern such as `shards-{000..012}.tar` or `data/*.parquet`, in order, each once.

    Raises UserError where there is none, or one that braces name is missing.
    """
    files: list[str] = []
    for path in _unfolded(pattern):
        if len(files) > _MAX_FILES:
            raise UserError(f"{pattern}: more than {_MAX_FILES:,} files", "give fewer, larger ones")
        found = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
        if not found:
            raise UserError(f"{path}: no such file", f"check the pattern {pattern}" if path != pattern else "")
        files += found
    return [Path(path) for path in dict.fromkeys(files)]


def _unfolded(pattern: str) -> Iterator[str]:
    """Braces as shells have them: {a,b} and {000..012}, the latter with as many digits as written."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    span = _RANGE.fullmatch(braces[1])
    parts: Iterator[str] = iter(braces[1].split(","))
    if span is not None:
        parts = (f"{number:0{len(span[1])}d}" for number in range(int(span[1]), int(span[2]) + 1))
    for part in parts:
        yield from _unfolded(pattern[: braces.start()] + part + pattern[braces.end() :])
