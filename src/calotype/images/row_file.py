"""A .npy file of picture rows that is written as they come, thinned out in place, and whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import UserError

HEADER_BYTES = 128
_COPIED_ROWS = 256  # at a time


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file open for reading and writing that takes the place of `path` when all went well, else is removed."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with open(aside, "wb+") as file:
            yield file
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


def npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 .npy header of HEADER_BYTES, so that the count can be filled in when it is known."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("latin-1")


def check_room(needed: int, folder: Path) -> None:
    """Raise UserError where `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise no_room(folder, f"the pictures need {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free")


def no_room(folder: Path, detail: str = "no space left") -> UserError:
    """The one line for a full disk."""
    return UserError(f"{folder}: disk full, {detail}", "free some space or choose another folder, then run it again")


def keep_rows(file: BinaryIO, rows: NDArray[np.int64], row_bytes: int) -> None:
    """Move `rows` (ascending) to the front of `file` and cut it there."""
    file.flush()
    whole = np.memmap(file, np.uint8, "r+", offset=HEADER_BYTES)
    table = whole.reshape(-1, row_bytes)
    for at in range(0, len(rows), _COPIED_ROWS):
        some = rows[at : at + _COPIED_ROWS]
        table[at : at + len(some)] = table[some]
    whole.flush()
    del whole, table
    file.truncate(HEADER_BYTES + len(rows) * row_bytes)
