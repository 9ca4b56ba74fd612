"""Parquet files of pictures: captions and labels are read at once, pictures as they are asked for.

Pictures are asked for nearly in order, by a few threads. So two places are kept open, each in a row group that is
being read, with the rows last read there: 32 of them, and more up to 8 MiB, beside the page that the file's writer
packed them into.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.images.archive import LIMITS
from calotype.images.decode import UnreadablePictureError
from calotype.images.patterns import splits_of_files
from calotype.images.rows import Part, Rows
from calotype.images.source import Source, Split
from calotype.images.tables import choose_columns, picture_bytes, pyarrow, said_by

_PLACES = 2
_BATCH = 8  # rows read at once: few, as a dictionary of one large picture can make each row large
_KEPT_ROWS, _KEPT_BYTES = 32, 2**23
_BUFFER = 2**20  # of compressed bytes read ahead


def parquet_source(paths: Sequence[Path], where: str) -> Source:
    """The rows of all files, in order. Raises UserError for one that is no whole Parquet file or has no pictures."""
    pyarrow()
    folder = os.path.commonpath([path.parent for path in paths])
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    splits = splits_of_files(names) if len(names) > 1 else None
    reader = _Reader()
    parts = [
        _part(path, name if len(names) > 1 else "", splits[i] if splits else None, reader)
        for i, (path, name) in enumerate(zip(paths, names))
    ]
    rows = Rows(parts)
    if not rows:
        raise UserError(f"{where}: no rows in it", "check that it is the data that was meant")
    return Source(where, rows)


def _part(path: Path, name: str, split: Split | None, reader: _Reader) -> Part:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            columns = choose_columns(file.schema_arrow, str(path))
            table = file.read(columns=columns.words)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            lengths = [group.num_rows for group in groups]
            LIMITS.check(sum(group.total_byte_size for group in groups), path.stat().st_size, str(path))
    except (OSError, ArrowException, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a whole Parquet file ({reason})", "check that it was copied whole") from error
    read = partial(reader.read, path, columns.picture, tuple(accumulate(lengths)))
    return Part(name, sum(lengths), read, *said_by(table, columns), split)


class _Reader:
    """Rows by file and number; the places last asked for stay open. Threads take turns: reading is a small part."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[Path, int], _Place] = {}

    def read(self, path: Path, column: str, ends: tuple[int, ...], row: int) -> bytes:
        """The bytes of one picture; UnreadablePictureError where its row group is broken at or before it."""
        group = bisect_right(ends, row)
        with self._lock:
            place = self._places.pop((path, group), None) or _Place(path, column, group)
            self._places[path, group] = place  # the last one now
            while len(self._places) > _PLACES:
                self._places.pop(next(iter(self._places))).close()
            cell = place.cell(row - (ends[group - 1] if group else 0))
        return picture_bytes(cell, path.parent)


class _Place:
    """A row group, read forwards in batches; what went by is read anew from its beginning."""

    def __init__(self, path: Path, column: str, group: int) -> None:
        self._path, self._column, self._group = path, column, group
        self._batches: deque[tuple[int, Any]] = deque()
        self._rest: Generator[tuple[int, Any], None, None] | None = None
        self._broken = ""  # why the rows end

    def close(self) -> None:
        """Close the file and let the rows go now: the place and what reads it hold each other."""
        self._batches.clear()
        if self._rest is not None:
            self._rest.close()

    def cell(self, row: int) -> Any:
        if self._rest is None or (self._batches and row < self._batches[0][0]):
            self.close()
            self._rest = self._from_the_start()
        while True:
            for start, column in self._batches:
                if start <= row < start + len(column):
                    return column[row - start]
            batch = next(self._rest, None)
            if batch is None:
                raise UnreadablePictureError(f"its part of the Parquet file cannot be read: {self._broken}")
            self._batches.append(batch)
            self._forget()

    def _forget(self) -> None:
        """Let the oldest rows go, down to what is kept."""
        rows, weight = 0, 0
        for i, (_, column) in enumerate(reversed(self._batches)):
            if rows >= _KEPT_ROWS and weight + column.nbytes > _KEPT_BYTES:
                for _ in range(len(self._batches) - i):
                    self._batches.popleft()
                return
            rows, weight = rows + len(column), weight + column.nbytes

    def _from_the_start(self) -> Generator[tuple[int, Any], None, None]:
        """(first row, pictures' column) of each batch; `_broken` tells why there is no more."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        row = 0
        try:
            with ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False) as file:
                for batch in file.iter_batches(_BATCH, row_groups=[self._group], columns=[self._column]):
                    yield row, batch.column(0)
                    row += batch.num_rows
            self._broken = "the file ends before it"
        except (OSError, ArrowException, ValueError, IndexError) as error:
            self._broken = str(error).partition("\n")[0]
