"""The work behind `prepare`: read and decode on a few threads, write rows in order, hold few of them at a time."""

from __future__ import annotations

import errno
import os
import shutil
import time
import warnings
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.images.decode import UnreadablePictureError, decode_picture
from calotype.images.source import Picture, Source, Split

_HEADER_BYTES = 128
_MAX_THREADS = 4  # each may hold a picture of MAX_PIXELS


@dataclass
class Prepared:
    """What decoding found: records of the rows written, in order, the split their source wishes, and refusals."""

    records: list[dict[str, Any]] = field(default_factory=list)
    wishes: list[Split | None] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Outcome:
    """One file: its row and hash, or the reason why there is none."""

    row: NDArray[np.uint8] | None
    digest: str = ""
    reason: str = ""
    size: int | None = None


def decode_all(source: Source, size: int, path: Path, reporter: Reporter) -> Prepared:
    """Write the readable pictures of `source` to the .npy file `path`, uint8 (n, 3, size, size), replaced atomically.

    Rows go out as they come, so memory does not grow with the number of pictures. Raises UserError when the disk is
    full; the unfinished file is removed.
    """
    _check_room(len(source.pictures) * 3 * size * size, path.parent)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(bytes(_HEADER_BYTES))
            found = _write_rows(file, source, size, reporter)
            file.seek(0)
            file.write(_npy_header((len(found.records), 3, size, size)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(path.parent) from error
        raise
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return found


def _write_rows(file: BinaryIO, source: Source, size: int, reporter: Reporter) -> Prepared:
    found, total = Prepared(), len(source.pictures)
    started = told = time.monotonic()
    # Pillow warns of oddities in files (broken EXIF, large sizes): what cannot be used is refused with a reason.
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        outcomes = stack.enter_context(closing(_outcomes(source, size)))
        for done, (picture, outcome) in enumerate(outcomes, start=1):
            if outcome.row is None:
                found.refused.append({"path": picture.name, "reason": outcome.reason, "bytes": outcome.size})
            else:
                file.write(outcome.row.data)
                found.wishes.append(picture.split)
                found.records.append(
                    {
                        "name": picture.name,
                        "sha256": outcome.digest,
                        "caption": picture.caption,
                        "label": picture.label,
                    }
                )
            now = time.monotonic()
            if now - told > 0.2 or done == total:
                told, rate = now, done / max(now - started, 1e-9)
                reporter.update(done, total, rate=rate, eta=(total - done) / rate)
    return found


def _outcomes(source: Source, size: int) -> Generator[tuple[Picture, _Outcome], None, None]:
    """Every picture with its outcome, in the source's order, decoded a few ahead."""
    threads = min(_threads(), _MAX_THREADS)
    waiting: deque[tuple[Picture, Future[_Outcome]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for picture in source.pictures:
                waiting.append((picture, pool.submit(_decode, picture, size)))
                if len(waiting) >= 4 * threads:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popleft()
                yield ready, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _decode(picture: Picture, size: int) -> _Outcome:
    content = None
    try:
        content = picture.read()
        row = decode_picture(content, size)
    except (UnreadablePictureError, OSError) as error:
        return _Outcome(None, reason=str(error), size=None if content is None else len(content))
    return _Outcome(row, digest=sha256(content).hexdigest(), size=len(content))


def _threads() -> int:
    """Cores this process may use (its affinity, where the system tells), not those the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 .npy header of fixed length, so that the count can be filled in when it is known."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(_HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("latin-1")


def _check_room(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise no_room(folder, f"the pictures need {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free")


def no_room(folder: Path, detail: str = "no space left") -> UserError:
    """The one line for a full disk."""
    return UserError(f"{folder}: disk full, {detail}", "free some space or choose another folder, then run it again")
