"""Pictures that are rows of something: made when asked for, so a million of them weigh no more than their columns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import overload

from calotype.images.source import Picture, Split

Said = Callable[[int], str | None]


def nothing(row: int) -> str | None:
    """What is said of a row where nothing is."""
    return None


@dataclass(frozen=True)
class Part:
    """Rows 0 to `length` of one file or split: `read` gives the bytes of one, `caption` and `label` what is known."""

    name: str
    length: int
    read: Callable[[int], bytes]
    caption: Said = nothing
    label: Said = nothing
    split: Split | None = None


class Rows(Sequence[Picture]):
    """The rows of all parts, in order. A picture is called after its part and row: "train/17"."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._ends = list(accumulate(part.length for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        place = bisect_right(self._ends, i)
        part = self.parts[place]
        row = i - (self._ends[place] - part.length)
        name = f"{part.name}/{row}" if part.name else str(row)
        return Picture(name, partial(part.read, row), part.caption(row), part.label(row), part.split)
