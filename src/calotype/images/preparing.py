"""The work behind `prepare`: files decoded in order into rows on disk, few in memory; copies found and left out."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calotype.core.progress import Reporter
from calotype.images.decode import Transform
from calotype.images.decoding import decode_pictures
from calotype.images.duplicates import THUMBNAIL, Copies, Views, find_copies, thumbnail
from calotype.images.row_file import HEADER_BYTES, check_room, keep_rows, npy_header, replacing
from calotype.images.settings import PictureConfig
from calotype.images.source import Picture, Source
from calotype.images.split import held_out_split

_ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")  # the frames of others are pages, or what a telephone adds to a JPEG


@dataclass(frozen=True, slots=True)
class File:
    """One readable file: whose rows are the next `crops`, and what it was before."""

    picture: Picture
    digest: str
    crops: int
    format: str
    mode: str
    width: int
    height: int
    frames: int


@dataclass
class Prepared:
    """What decoding found: files with rows, in order; refusals; copies, whether they were left out or not."""

    files: list[File] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def readable(self) -> int:
        """How many files could be decoded."""
        return len(self.files) + self.dropped

    @property
    def dropped(self) -> int:
        return self.count_copies(dropped=True)

    def count_copies(self, **wanted: Any) -> int:
        """How many of the copies have these values."""
        return sum(all(copy[key] == value for key, value in wanted.items()) for copy in self.copies)


def decode_all(source: Source, size: int, path: Path, reporter: Reporter, config: PictureConfig) -> Prepared:
    """Write the readable pictures of `source` to the .npy file `path`, uint8 (n, 3, size, size), replaced atomically.

    Rows go out as they come, so memory does not grow with their number. Raises UserError when the disk is full; the
    unfinished file is removed.
    """
    transform = config.transform(size)
    check_room(len(source.pictures) * transform.crops * 3 * size * size, path.parent)
    with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as thumbnails:
        file.write(bytes(HEADER_BYTES))
        found = _write_rows(file, thumbnails, source, transform, reporter, config.seconds)
        _leave_out(file, thumbnails, found, size, config.duplicates)
        file.seek(0)
        file.write(npy_header((sum(each.crops for each in found.files), 3, size, size)))
    return found


def _write_rows(
    file: BinaryIO,
    thumbnails: BinaryIO,
    source: Source,
    transform: Transform,
    reporter: Reporter,
    seconds: float,
) -> Prepared:
    """Every readable file's rows into `file`, and the first one's thumbnail into `thumbnails`."""
    found, total = Prepared(), len(source.pictures)
    started = told = time.monotonic()
    with ExitStack() as stack:
        outcomes = stack.enter_context(closing(decode_pictures(source.pictures, transform, seconds=seconds)))
        for done, (picture, outcome) in enumerate(outcomes, start=1):
            made = outcome.decoded
            if made is None:
                found.refused.append({"path": picture.name, "reason": outcome.reason, "bytes": outcome.bytes})
            else:
                file.write(made.pixels.data)
                thumbnails.write(thumbnail(made.pixels[0]).data)
                was = (made.format, made.mode, made.width, made.height, made.frames)
                found.files.append(File(picture, outcome.digest, len(made.pixels), *was))
            now = time.monotonic()
            if now - told > 0.2 or done == total:
                told, rate = now, done / max(now - started, 1e-9)
                reporter.update(done, total, rate=rate, eta=(total - done) / rate)
    return found


def _leave_out(file: BinaryIO, thumbnails: BinaryIO, found: Prepared, size: int, duplicates: str) -> None:
    """List the copies in `found`; those not wanted lose their place in it and their rows in `file`."""
    if not found.files:
        return
    crops = np.array([each.crops for each in found.files])
    for written in (file, thumbnails):
        written.flush()
    views = Views(
        np.memmap(thumbnails, np.uint8, "r", shape=(len(crops), 3, THUMBNAIL, THUMBNAIL)),
        np.memmap(file, np.uint8, "r", HEADER_BYTES, (int(crops.sum()), 3, size, size)),
        crops.cumsum() - crops,
    )
    copies = find_copies([each.digest for each in found.files], views)
    equal, unwanted = copies.equal, _unwanted(copies, duplicates)
    names = [each.picture.name for each in found.files]
    for row in (equal | copies.near).nonzero()[0].tolist():
        kind, first = ("equal", copies.equal_to[row]) if equal[row] else ("near", copies.like[row])
        found.copies.append({"path": names[row], "copy_of": names[first], "kind": kind, "dropped": bool(unwanted[row])})
    if unwanted.any():
        keep_rows(file, np.repeat(~unwanted, crops).nonzero()[0], 3 * size * size)
        found.files = [each for each, out in zip(found.files, unwanted, strict=True) if not out]


def _unwanted(copies: Copies, duplicates: str) -> NDArray[np.bool_]:
    if duplicates == "keep":
        return np.zeros(len(copies.like), dtype=np.bool_)
    return copies.equal | copies.near if duplicates == "drop-near" else copies.equal


def records_of(found: Prepared) -> list[dict[str, Any]]:
    """A record a row, with the split."""
    split = held_out_split([file.digest for file in found.files], [file.picture.split for file in found.files])
    return [
        {
            "name": file.picture.name,
            "sha256": file.digest,
            "crop": crop,
            "caption": file.picture.caption,
            "label": file.picture.label,
            "split": side,
        }
        for file, side in zip(found.files, split, strict=True)
        for crop in range(file.crops)
    ]


def count_leaks(found: Prepared, records: list[dict[str, Any]]) -> int:
    """How many copies were kept on the other side of the split than the first of their kind.

    They are only counted: to move them would let a new picture move an old one across.
    """
    side = {record["name"]: record["split"] for record in records}
    kept = [copy for copy in found.copies if not copy["dropped"]]
    return sum(side[copy["path"]] != side[copy["copy_of"]] for copy in kept)


def describe_originals(files: list[File], size: int) -> dict[str, Any]:
    """What the files were: formats, modes, sides in pixels; how many are smaller than asked, or twice as long as wide.

    `low` is a side that nine of ten reach.
    """
    sides = np.array([(file.width, file.height) for file in files])
    shorter = sides.min(axis=1)
    measured = {"width": sides[:, 0], "height": sides[:, 1], "shorter_side": shorter}
    return {
        "formats": dict(Counter(file.format for file in files).most_common()),
        "modes": dict(Counter(file.mode for file in files).most_common()),
        "animated": sum(file.frames > 1 and file.format in _ANIMATED for file in files),
        "smaller": int((shorter < size).sum()),
        "elongated": int((sides.max(axis=1) >= 2 * shorter).sum()),
        **{
            name: {
                "min": int(side.min()),
                "low": int(np.quantile(side, 0.1)),
                "median": int(np.median(side)),
                "max": int(side.max()),
            }
            for name, side in measured.items()
        },
    }
