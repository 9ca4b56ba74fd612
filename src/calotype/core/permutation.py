"""A random order of any number of things, one place at a time: no table, so a billion cost what a thousand do.

A Feistel network on pairs (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"): a place is written as
(left, right) with left < a and right < b, a b >= count. Each round adds to one half a hash of the other, which the
other can take away again; so every round, and all of them, map the pairs one to one. What lands beyond `count` is sent
through again until it does not (a share of at most 1/sqrt(count) of the places).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROUNDS = 8  # four are enough to pass for random (Luby & Rackoff 1988); the others cost 10 microseconds
_GOLDEN, _MIX = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64 (Steele et al. 2014)
Words = NDArray[np.uint64]


def permuted(places: Tensor, count: int, keys: Sequence[int]) -> Tensor:
    """Where a permutation of range(count) sends places (b,): int64 (b,). `keys`, ROUNDS of 64 bits, choose it."""
    rows = -(-count // (columns := math.isqrt(count)))
    moved = _through(places.numpy().astype(np.uint64), rows, columns, keys)
    while (outside := moved >= count).any():
        moved[outside] = _through(moved[outside], rows, columns, keys)
    return torch.from_numpy(moved.astype(np.int64))


def _through(places: Words, rows: int, columns: int, keys: Sequence[int]) -> Words:
    """All rounds: the halves take turns."""
    row, column = np.divmod(places, np.uint64(columns))
    for number, key in enumerate(keys):
        if number % 2:
            column = (column + _hashed(row, key) % np.uint64(columns)) % np.uint64(columns)
        else:
            row = (row + _hashed(column, key) % np.uint64(rows)) % np.uint64(rows)
    found: Words = row * np.uint64(columns) + column
    return found


def _hashed(values: Words, key: int) -> Words:
    """64 bits that look random, different for every key: splitmix64's finish."""
    z = (values ^ np.uint64(key)) + np.uint64(_GOLDEN)
    for shift, factor in zip((30, 27), _MIX, strict=True):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    hashed: Words = z ^ (z >> np.uint64(31))
    return hashed
