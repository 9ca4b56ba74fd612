"""The training picture nearest to each picture that the report shows, and which of those are copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calotype.evaluation.memorization import memorization
from calotype.images.pixels import to_uint8

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet

MOST_COMPARED, MOST_HELD_OUT = 10_000, 512
FEWEST_COMPARED = 12


@dataclass(frozen=True)
class Neighbour:
    """`row` of the picture set is the nearest training picture; `copy` says that it is as near as copies are."""

    row: int
    copy: bool


def find_neighbours(images: Tensor, pictures: PictureSet, asked: Sequence[int] = ()) -> list[Neighbour]:
    """The neighbour of each picture (n, 3, H, W) in [-1, 1], by pixels; none in a set too small to say.

    Compared with at most 10,000 training pictures: those of the rows `asked` for, then others, evenly chosen.
    """
    rows = pictures.train_ids
    own = rows[torch.isin(rows, torch.tensor(list(asked), dtype=torch.long))]
    others = rows[torch.linspace(0, len(rows) - 1, min(len(rows), MOST_COMPARED)).long()]
    rows = torch.cat([own, others[~torch.isin(others, own)]])[:MOST_COMPARED]
    if len(rows) < FEWEST_COMPARED:
        return []
    held_out = pictures.held_out_ids[:MOST_HELD_OUT]
    found = memorization(to_uint8(images), pictures.pixels[rows], pictures.pixels[held_out])
    return [
        Neighbour(int(rows[k]), bool(copy))
        for k, copy in zip(found.neighbours.tolist(), found.is_copy.tolist(), strict=True)
    ]
