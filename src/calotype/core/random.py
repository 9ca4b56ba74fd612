"""Counter-based randomness: every draw is a pure function of (seed, stream, step, sample id).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorised over samples. Nothing is
stateful, so a resumed run draws what the undisturbed one would have drawn, a picture's noise is the same alone or in
a batch of 64, and any rank can draw any sample's numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from zlib import crc32

import torch
from torch import Tensor

from calotype.core.permutation import ROUNDS, permuted

TABLED = 2**20  # samples whose order is drawn up whole, in a second and 16 MB; of more each place is computed
_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32: four int64 tensors that hold 32-bit words -> four more, uniform on [0, 2^32)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32 x 32 bit product, in halves so that int64 never overflows."""
    upper, lower = (word >> 16) * constant, (word & 0xFFFF) * constant
    low = ((upper & 0xFFFF) << 16) + lower
    return (upper >> 16) + (low >> 32), low & _MASK


def _words(seed: int, stream: str, step: int | Tensor, ids: Tensor, count: int) -> Tensor:
    """(b, count) words in [0, 2^32): `stream` separates uses (noise, timesteps, flips), `ids` (b,) the samples.

    Philox counts on four 32-bit words: (position, step, id, stream); the 64-bit seed is its key.
    """
    ids = ids.to(torch.int64).reshape(-1, 1)
    blocks = torch.arange(-(-count // 4), device=ids.device).reshape(1, -1)
    shape = (len(ids), blocks.shape[1])
    steps = step.to(torch.int64).reshape(-1, 1) if isinstance(step, Tensor) else torch.full_like(ids, step)
    tag = torch.full_like(ids, crc32(stream.encode()))
    counter = tuple(word.expand(shape) & _MASK for word in (blocks, steps, ids, tag))
    words = philox(counter, (seed & _MASK, (seed >> 32) & _MASK))  # type: ignore[arg-type]
    return torch.stack(words, dim=-1).flatten(1)[:, :count]


def uniform(seed: int, stream: str, step: int | Tensor, ids: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform draws on (0, 1), float32 (b, *shape): one row a sample id."""
    words = _words(seed, stream, step, ids, math.prod(shape))
    return ((words.double() + 0.5) / 2**32).reshape(len(ids), *shape).float().clamp(max=1 - 2**-24)


def normal(seed: int, stream: str, step: int | Tensor, ids: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal draws, float32 (b, *shape), by the Box-Muller transform."""
    count = math.prod(shape)
    half = -(-count // 2)
    words = (_words(seed, stream, step, ids, 2 * half).double() + 0.5) / 2**32
    radius = torch.sqrt(-2 * torch.log(words[:, :half]))
    angle = 2 * math.pi * words[:, half:]
    draws = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return draws[:, :count].reshape(len(ids), *shape).float()


def seeded_noise(seeds: Tensor, step: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that pictures with these seeds (b,) see at sampling step `step`: (b, *shape). Step 0 is x_T."""
    return normal(0, "sampling", step, seeds, shape)


def batch_ids(seed: int, step: int, batch_size: int, num_samples: int) -> Tensor:
    """Indices (b,) of the global batch at `step` (0-based): consecutive epochs, each a fresh permutation.

    Every sample is visited once an epoch; a batch may straddle two epochs. Pure in its arguments, so resuming needs no
    fast-forward and any number of ranks can share one batch.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = positions // num_samples, positions % num_samples
    ids = torch.empty(batch_size, dtype=torch.int64)
    for epoch in epochs.unique().tolist():
        chosen = epochs == epoch
        ids[chosen] = _shuffled(seed, epoch, num_samples, offsets[chosen])
    return ids


def _shuffled(seed: int, epoch: int, num_samples: int, places: Tensor) -> Tensor:
    """The samples at some places (b,) of an epoch's order."""
    if num_samples <= TABLED:
        return _permutation(seed, epoch, num_samples)[places]
    return permuted(places, num_samples, _round_keys(seed, epoch))


@lru_cache(maxsize=2)  # a batch may straddle two epochs; drawing a million places anew for each would cost .2 s
def _permutation(seed: int, epoch: int, num_samples: int) -> Tensor:
    """A permutation of range(num_samples) that depends on (seed, epoch) alone."""
    words = _words(seed, "order", epoch, torch.arange(num_samples), 2)
    return torch.argsort((words[:, 0] << 31) ^ words[:, 1], stable=True)


@lru_cache(maxsize=2)
def _round_keys(seed: int, epoch: int) -> list[int]:
    words = _words(seed, "order-rounds", epoch, torch.arange(ROUNDS), 2)
    return [high << 32 | low for high, low in words.tolist()]
