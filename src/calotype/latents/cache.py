"""What the denoiser learns from: every picture's posterior, plain and mirrored, in memory or read from its shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.shards import Keys, OpenFiles, Places, ShardStore, locate_tensor, read_shard
from calotype.latents.codec import LatentStatistics

MEMORY = 2**30  # bytes of latents that are held in main memory whole; more of them are read as they are wanted
VALUES_AT_ONCE = 2**18  # of a pass over all latents
QUANTILE_VALUES = 1_000_000  # a quantile of so many is exact enough
BOUND_QUANTILE = 0.995

VALUES = "values"  # float16 (n, v, 2, c, h, w) in a shard: v = plain, or plain and mirrored; mean, then std


@dataclass
class HeldRows:
    """Posteriors as one tensor `values` (n, v, 2, c, h, w), on any device."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def take(self, ids: Tensor, flipped: Tensor | None) -> Tensor:
        """(b, 2, c, h, w) of pictures `ids` (b,), as stored."""
        rows = ids.to(self.values.device) * self.values.shape[1]
        if flipped is not None and self.values.shape[1] > 1:
            rows = rows + flipped.to(rows)
        return self.values.flatten(0, 1).index_select(0, rows)


class StoredRows:
    """Posteriors left in their shards, read by position; `places` says where each picture's is.

    Nothing of them stays in this process: what was read lately is in the system's cache of files, which gives way when
    memory is wanted. (Mapped into memory, a touched page may bring a whole huge page with it: measured at 4 GB, that is
    four times slower and takes a gigabyte within a thousand rows.)
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        tensors = [locate_tensor(path, VALUES) for path in places.paths]
        self.shape = tensors[0][2][1:]
        if any((kind, shape[1:]) != ("F16", self.shape) for _, kind, shape in tensors) or len(self.shape) != 5:
            raise CorruptFileError(
                f"{places.paths[0].parent} holds other things than latents of one shape",
                "remove that folder: its latents are made anew",
            )
        self.nbytes = len(self) * math.prod(self.shape) * 2
        self._starts = np.array([start for start, _, _ in tensors])
        self._files = OpenFiles(places.paths)

    def __len__(self) -> int:
        return len(self.places.shard)

    def take(self, ids: Tensor, flipped: Tensor | None) -> Tensor:
        """(b, 2, c, h, w) of pictures `ids` (b,), as stored."""
        rows = ids.cpu().numpy()
        places = self.places.row[rows].astype(np.int64) * self.shape[0]
        if flipped is not None and self.shape[0] > 1:
            places += flipped.cpu().numpy()
        values = np.empty((len(rows), *self.shape[1:]), np.float16)
        shards = self.places.shard[rows]
        starts = self._starts[shards] + places * values[:1].nbytes
        self._files.read(shards.tolist(), starts.tolist(), values)
        return torch.from_numpy(values)

    def hold(self, device: torch.device | None = None) -> Tensor:
        """All of it as one tensor (n, v, 2, c, h, w) on `device`, read shard by shard."""
        shard, row = self.places.shard, self.places.row.astype(np.int64)
        values = torch.empty(len(self), *self.shape, dtype=torch.float16, device=device)
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard[order], np.arange(len(self.places.paths) + 1)).tolist()
        for path, (start, end) in zip(self.places.paths, pairwise(ends), strict=True):
            if end > start:
                chosen = order[start:end]
                part = read_shard(path)[VALUES][torch.from_numpy(row[chosen])]
                values[torch.from_numpy(chosen).to(values.device)] = part.to(values.device)
        return values


Rows = HeldRows | StoredRows


class LatentSet:
    """Posteriors of n pictures, of latents of `shape` (c, h, w), and the statistics by which they are standardised."""

    def __init__(self, rows: Rows, statistics: LatentStatistics, device: torch.device | None = None) -> None:
        self.rows, self.statistics = rows, statistics
        self.device = device or torch.device("cpu")
        channels, height, width = rows.shape[2:]
        self.shape = (channels, height, width)
        self._mean = torch.tensor(statistics.mean, device=self.device).reshape(1, -1, 1, 1)
        self._std = torch.tensor(statistics.std, device=self.device).reshape(1, -1, 1, 1)

    @staticmethod
    def from_tensors(mean: Tensor, std: Tensor, statistics: LatentStatistics) -> LatentSet:
        """Of mean, std (v, n, c, h, w), v = 1, or 2 with the mirrored pictures second."""
        values = torch.stack([mean, std], dim=2).transpose(0, 1).contiguous()
        return LatentSet(HeldRows(values), statistics, values.device)

    def __len__(self) -> int:
        return len(self.rows)

    def posterior(self, ids: Tensor, flipped: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Raw mean and std, float32 (b, c, h, w) each, of pictures `ids` (b,), those `flipped` (b,) mirrored."""
        mean, std = self.rows.take(ids, flipped).to(self.device).float().unbind(1)
        return mean, std

    def draw(self, ids: Tensor, flipped: Tensor | None, noise: Tensor) -> Tensor:
        """A fresh standardised sample x0 (b, c, h, w) of the posteriors of pictures `ids` (b,), some mirrored."""
        mean, std = self.posterior(ids, flipped)
        return self.standardize(mean + std * noise)

    def standardize(self, z_raw: Tensor) -> Tensor:
        """z_raw -> x0, with the codec's own statistics."""
        return (z_raw - self._mean.to(z_raw.device)) / self._std.to(z_raw.device)

    def to(self, device: torch.device) -> LatentSet:
        """The same, its batches on `device`; it lies there whole where it takes no more than a quarter of the room."""
        rows = self.rows
        if isinstance(rows, HeldRows) and _fits(rows.values.nbytes, device):
            rows = HeldRows(rows.values.to(device))
        elif isinstance(rows, StoredRows) and device.type == "cuda" and _fits(rows.nbytes, device):
            rows = HeldRows(rows.hold(device))
        return LatentSet(rows, self.statistics, device)


def open_rows(store: ShardStore, keys: Keys) -> Rows:
    """The posteriors of the pictures `keys` (n, 32), in this order: in memory if they are small, else on disk."""
    places = store.locate(keys)
    if not places.found.all():
        raise CorruptFileError(
            f"{store.folder} lacks latents of {int((~places.found).sum()):,} pictures", "give the same command again"
        )
    rows = StoredRows(places)
    return HeldRows(rows.hold()) if rows.nbytes <= MEMORY else rows


def measure(rows: Rows, ids: Tensor) -> LatentStatistics:
    """Mean, total std and the 99.5 % quantile of |x0| over pictures `ids` and their mirrored ones, in bounded memory.

    The scale is that of what the denoiser sees: var(mean) + mean(std^2) per channel, over the whole training set (a
    scale from one batch, or a constant from elsewhere, is how samples become noise).
    """
    variants, _, channels, height, width = rows.shape
    area, count = height * width, variants * len(ids)
    step = -(-count * channels * area // QUANTILE_VALUES)
    while math.gcd(step, channels * area) > 1:  # else some channels and positions are never among the chosen
        step += 1
    at_once = max(VALUES_AT_ONCE // (channels * area), 1)
    total, squares = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    sample, seen = torch.empty(-(-count * channels * area // step)), 0  # every `step`th value of the means
    for variant in range(variants):
        for part in ids.split(at_once):
            flipped = torch.full((len(part),), bool(variant))
            mean, std = rows.take(part, flipped).cpu().double().unbind(1)
            total += mean.sum((0, 2, 3))
            squares += (mean.square() + std.square()).sum((0, 2, 3))
            chosen = mean.flatten()[-seen % step :: step]
            sample[-(-seen // step) :][: len(chosen)] = chosen
            seen += mean.numel()
    center = total / (count * area)
    spread = (squares / (count * area) - center.square()).clamp(min=0).sqrt().clamp(min=1e-6)
    channel = torch.arange(0, seen, step) // area % channels
    bound = torch.quantile(((sample - center[channel]) / spread[channel]).abs(), BOUND_QUANTILE)
    return LatentStatistics(mean=tuple(center.tolist()), std=tuple(spread.tolist()), bound=float(bound))


def _fits(nbytes: int, device: torch.device) -> bool:
    """Whether latents may lie on `device`. Apple's accelerators share main memory, where small ones always fit."""
    return device.type != "cuda" or nbytes <= torch.cuda.mem_get_info(device)[0] // 4
