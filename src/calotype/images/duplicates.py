"""Copies among pictures: equal files by their hash, and pictures that look alike though their bytes differ.

Looking alike is judged on thumbnails. Comparing all pairs would take n² of them, so pairs are proposed first: a
fingerprint of 256 bits per picture (which of two places is the lighter one, for 256 fixed pairs of places) is sorted
from eight different bits on, and each picture is compared with its next neighbours in each order. A pair with fewer
than eight different bits agrees in at least one of the eight parts, which brings it together in the order that begins
there; only in a crowd of pictures with equal parts can it be missed. Time is n log n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 16  # pixels a side

_PLACES = 8  # a fingerprint compares means over this many by this many places, in three colours
_MARGIN = 4.0  # levels by which one place must be lighter: plain areas then give 0, not noise
_PARTS, _NEIGHBOURS, _BITS = 8, 4, 24  # orders, neighbours compared in each, most bits in which a pair may differ
_CHUNK = 1 << 14
_ONES = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class Copies:
    """For each of n files the first one of the same bytes (`equal_to`), and the first that looks alike (`like`).

    Both are int64 (n,), and a file's own position where there is no earlier one.
    """

    equal_to: NDArray[np.int64]
    like: NDArray[np.int64]

    @property
    def equal(self) -> NDArray[np.bool_]:
        """Those that have the bytes of an earlier one."""
        return self.equal_to != np.arange(len(self.like))

    @property
    def near(self) -> NDArray[np.bool_]:
        """Those that look like an earlier one, with bytes that no earlier one has."""
        return (self.like != np.arange(len(self.like))) & ~self.equal


@dataclass(frozen=True)
class Views:
    """What is compared: `thumbnails` (n, 3, 16, 16) and `squares` (m, 3, s, s), which may both be memory-mapped.

    `rows` (n,) says which square is which thumbnail's.
    """

    thumbnails: NDArray[np.uint8]
    squares: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def alike(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each pair of positions (m,) where both show the same, in the large and in detail."""
        same = np.zeros(len(one), dtype=np.bool_)
        for at in range(0, len(one), _CHUNK):
            part = slice(at, at + _CHUNK)
            same[part] = _alike_at_large(self.thumbnails[one[part]], self.thumbnails[two[part]])
        for pair in same.nonzero()[0]:
            same[pair] = _alike_in_detail(self.squares[self.rows[one[pair]]], self.squares[self.rows[two[pair]]])
        return same


def thumbnail(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The means of a picture (3, s, s) over 16 × 16 areas, uint8 (3, 16, 16)."""
    return (_means(square, THUMBNAIL) + 0.5).astype(np.uint8)


def find_copies(digests: list[str], views: Views) -> Copies:
    """Which files copy an earlier one, from their sha256 and what they show."""
    count = len(digests)
    seen: dict[str, int] = {}
    first = np.fromiter((seen.setdefault(digest, row) for row, digest in enumerate(digests)), np.int64, count)
    lead = list(range(count))
    for early, late in _alike_pairs(views, np.fromiter(seen.values(), np.int64, len(seen))).tolist():
        one, two = sorted((_follow(lead, early), _follow(lead, late)))
        if one != two and ((one, two) == (early, late) or views.alike(np.array([one]), np.array([two]))[0]):
            lead[two] = one
    like = np.fromiter((_follow(lead, row) for row in first.tolist()), np.int64, count)
    # A row of small changes must not join pictures unlike each other: a copy is alike the first of its group itself.
    moved = (like != first).nonzero()[0]
    apart = moved[~views.alike(like[moved], moved)]
    like[apart] = first[apart]
    return Copies(equal_to=first, like=like)


def _follow(lead: list[int], row: int) -> int:
    """The first of the group that `row` is in; what is passed on the way is tied to it directly."""
    first = row
    while lead[first] != first:
        first = lead[first]
    while lead[row] != first:
        lead[row], row = first, lead[row]
    return first


def _alike_pairs(views: Views, distinct: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (m, 2) from the positions `distinct` that look alike: the earlier first, sorted by the later."""
    count = len(distinct)
    if count < 2:
        return np.empty((0, 2), dtype=np.int64)
    chunks = [distinct[at : at + _CHUNK] for at in range(0, count, _CHUNK)]
    prints = np.concatenate([_fingerprints(views.thumbnails[chunk]) for chunk in chunks])
    proposed = np.unique(np.concatenate([_neighbours(prints, part) for part in range(_PARTS)]))
    pairs = distinct[np.stack([proposed % count, proposed // count], axis=1)]
    kept: NDArray[np.int64] = pairs[views.alike(pairs[:, 0], pairs[:, 1])]
    return kept


def _neighbours(prints: NDArray[np.uint8], part: int) -> NDArray[np.int64]:
    """Proposed pairs as later · n + earlier: neighbours in the order that begins with part `part` of 8."""
    count, width = prints.shape
    words = np.ascontiguousarray(np.roll(prints, -part * width // _PARTS, axis=1)).view(">u8")
    order = np.lexsort(words.T[::-1])
    found = []
    for step in range(1, min(_NEIGHBOURS, count - 1) + 1):
        one, two = order[:-step], order[step:]
        close = np.concatenate(
            [
                _ONES[prints[one[at : at + _CHUNK]] ^ prints[two[at : at + _CHUNK]]].sum(axis=1) <= _BITS
                for at in range(0, len(one), _CHUNK)
            ]
        )
        found.append(np.maximum(one, two)[close] * count + np.minimum(one, two)[close])
    return np.concatenate(found)


def _alike_at_large(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where thumbnails (m, 3, 16, 16) are nearly proportional and nowhere far apart, or hardly differ at all."""
    axes = (1, 2, 3)
    first, second = one.astype(np.float32), two.astype(np.float32)
    difference = np.abs(first - second)
    error = np.sqrt((difference**2).mean(axis=axes))
    first -= first.mean(axis=(2, 3), keepdims=True)
    second -= second.mean(axis=(2, 3), keepdims=True)
    both = np.sqrt((first**2).sum(axis=axes) * (second**2).sum(axis=axes))
    correlated = (first * second).sum(axis=axes) >= 0.992 * both
    return (difference.max(axis=axes) <= 32) & (((error <= 16) & correlated) | (error <= 1.5))


def _alike_in_detail(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> bool:
    """False where two squares (3, s, s) differ by a small thing: a hand of a clock, a mouth, an emblem on a flag.

    Encoding a picture again, or at another size, changes it a little everywhere; such a thing changes a lot in a spot.
    """
    difference = np.abs((_means(one, 2 * THUMBNAIL) - _means(two, 2 * THUMBNAIL)).mean(axis=0))
    spread = float(np.sqrt((difference**2).mean()))
    return float(difference.max()) <= min(40.0, max(12.0, 8 * spread))


def _fingerprints(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """256 bits a thumbnail (n, 3, 16, 16) -> uint8 (n, 32)."""
    step = THUMBNAIL // _PLACES
    blocks = thumbnails.reshape(-1, 3, _PLACES, step, _PLACES, step).mean(axis=(3, 5), dtype=np.float32)
    places = blocks.reshape(len(blocks), -1)
    one, two = _places()
    return np.packbits(places[:, one] > places[:, two] + _MARGIN, axis=1)


@lru_cache
def _places() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fixed pairs of places (of 8 · 8 · 3) that a fingerprint compares."""
    random = np.random.default_rng(0)
    pairs = np.stack([random.permutation(3 * _PLACES**2)[:2] for _ in range(256)])
    return pairs[:, 0], pairs[:, 1]


def _means(square: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Means of (3, s, s) over count × count areas, whatever s is."""
    areas = _areas(square.shape[-1], count)
    means: NDArray[np.float32] = areas @ square.astype(np.float32) @ areas.T
    return means


@lru_cache
def _areas(size: int, count: int) -> NDArray[np.float32]:
    """(count, size): the share that each of `size` pixels has in each of `count` equal parts."""
    edges = np.linspace(0, size, count + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)
