"""Rows of tensors by key, in files that are named by the sha256 of their bytes: each is whole, or found out.

A shard is a safetensors file of tensors of equal length and of `keys`, uint8 (n, 32): a sha256 a row. Shards are
never changed, only added, so that runs may share them by hard links, and a kill leaves nothing that is half there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.files import fsync_folder, sha256, write_bytes

Keys = NDArray[np.uint8]  # (n, 32)
KEYS = "keys"
MEND = "give the same command again: it is made anew"


@dataclass(frozen=True)
class Places:
    """Where rows lie: row `row[i]` of file `paths[shard[i]]`; -1 where no shard has it. 8 bytes a row."""

    paths: list[Path]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]

    @property
    def found(self) -> NDArray[np.bool_]:
        return self.shard >= 0


@dataclass(frozen=True)
class ShardStore:
    """A folder of shards. One process at a time may verify, adopt and clear; any number may add."""

    folder: Path

    @property
    def paths(self) -> list[Path]:
        """The shards, in the order of their names."""
        return sorted(self.folder.glob("[0-9a-f]*.safetensors"))

    def add(self, keys: Keys, tensors: dict[str, Tensor]) -> Path:
        """Write one shard, whole or not at all; durable when this returns."""
        whole = {name: rows.contiguous() for name, rows in tensors.items()}
        content = save({KEYS: torch.from_numpy(keys.copy()), **whole})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        write_bytes(path, content)
        return path

    def locate(self, keys: Keys) -> Places:
        """Where the rows of `keys` are; of several rows of one key, the first."""
        paths = self.paths
        parts = [_read_keys(path) for path in paths]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        if not lengths.sum():
            nowhere = np.full(len(keys), -1, dtype=np.int32)
            return Places(paths, nowhere, nowhere.copy())
        known = _words(np.concatenate(parts))
        del parts
        order = np.argsort(known, kind="stable")
        known, wanted = known[order], _words(keys)
        places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        found, flat = known[places] == wanted, order[places]
        ends = lengths.cumsum()
        shard = np.searchsorted(ends, flat, side="right")
        row = flat - (ends - lengths)[shard]
        return Places(paths, np.where(found, shard, -1).astype(np.int32), np.where(found, row, -1).astype(np.int32))

    def missing(self, keys: Keys) -> NDArray[np.int64]:
        """Positions in `keys` that no shard has, ascending; of equal keys the first."""
        first = np.zeros(len(keys), dtype=bool)
        first[np.unique(_words(keys), return_index=True)[1]] = True
        return (first & ~self.locate(keys).found).nonzero()[0]

    def verify(self) -> list[str]:
        """Compare every shard with its name; what differs is removed and returned, its rows missing from then."""
        paths = self.paths
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            damaged = [path for path, whole in zip(paths, pool.map(_is_whole, paths)) if not whole]
        for path in damaged:
            path.unlink()
        return [path.name for path in damaged]

    def adopt(self, others: Iterable[Path], keys: Keys) -> int:
        """Take shards with rows that are missing here from other folders, by hard link where that can be.

        Only whole ones are taken. Returns how many of `keys` were found so.
        """
        missing = keys[self.missing(keys)]
        before = len(missing)
        for folder in others:
            theirs = ShardStore(folder)
            if not len(missing) or folder.resolve() == self.folder.resolve():
                continue
            # Their owner may be at work, or keep them to himself; there is no need of them.
            with suppress(FileNotFoundError, PermissionError, CorruptFileError):
                places = theirs.locate(missing)
                wanted = [places.paths[i] for i in np.unique(places.shard[places.found])]
                for path in wanted:
                    _share(path, self.folder / path.name)
            missing = missing[~self.locate(missing).found]
        return before - len(missing)

    def clear(self) -> None:
        """Remove what a kill left half-written."""
        for left in self.folder.glob(".*.tmp"):
            left.unlink()


def read_shard(path: Path) -> dict[str, Tensor]:
    """The tensors of a shard but for its keys."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name != KEYS}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} is not whole ({error})", MEND) from None


def locate_tensor(path: Path, name: str) -> tuple[int, str, tuple[int, ...]]:
    """Where in a shard a tensor's bytes begin, its type in safetensors' words ("F16"), and its shape."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length))[name]
        return 8 + length + int(entry["data_offsets"][0]), str(entry["dtype"]), tuple(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, MemoryError, OverflowError) as error:
        raise CorruptFileError(f"{path} is not whole ({error!r})", MEND) from None


class OpenFiles:
    """Many files to read from by position. As many are kept open as the system lets a process have."""

    SPARED = 256  # descriptors left to everything else

    def __init__(self, paths: list[Path]) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < len(paths) + self.SPARED:
            soft = len(paths) + self.SPARED if hard == resource.RLIM_INFINITY else min(len(paths) + self.SPARED, hard)
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = len(paths) if soft == resource.RLIM_INFINITY else max(soft - self.SPARED, 0)
        self.paths = paths
        self.descriptors = [os.open(path, os.O_RDONLY) for path in paths[:room]]
        weakref.finalize(self, _close, self.descriptors)

    def read(self, files: list[int], starts: list[int], into: NDArray[Any]) -> None:
        """Fill row i of `into` (b, ...) with the bytes of file `files[i]` from `starts[i]` on."""
        size = into[:1].nbytes
        for file, start, row in zip(files, starts, into.reshape(len(into), -1), strict=True):
            if file < len(self.descriptors):
                got = os.preadv(self.descriptors[file], (row.data,), start)
            else:
                descriptor = os.open(self.paths[file], os.O_RDONLY)
                try:
                    got = os.preadv(descriptor, (row.data,), start)
                finally:
                    os.close(descriptor)
            if got != size:
                raise CorruptFileError(f"{self.paths[file]} was cut short", MEND)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def cut(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """`rows` in units of exactly `size`, the last one perhaps shorter.

    Where whole units are done and gone, the rest is cut into the same units again: so work that goes on after a kill
    writes the very files that it would have written.
    """
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def hashed(text: str) -> bytes:
    """The key, 32 bytes, of a text."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()


def _words(keys: Keys) -> NDArray[np.bytes_]:
    """Keys as one comparable value a row."""
    return np.ascontiguousarray(keys).view("S32").reshape(-1)


def _read_keys(path: Path) -> Keys:
    try:
        with safe_open(path, "numpy") as file:
            keys: Keys = file.get_tensor(KEYS)
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} is not whole ({error})", MEND) from None
    return keys


def _is_whole(path: Path) -> bool:
    try:
        return sha256(path) == path.stem and len(_read_keys(path).shape) == 2
    except CorruptFileError:
        return False
    except OSError as error:
        if error.errno != errno.EIO:  # what the disk cannot give back is as good as damaged
            raise
        return False


def _share(theirs: Path, ours: Path) -> None:
    """Link, or else copy, a shard; one that is not what its name says is left."""
    ours.parent.mkdir(parents=True, exist_ok=True)
    aside = ours.with_name(f".{ours.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    try:
        os.link(theirs, aside)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        content = theirs.read_bytes()
        if hashlib.sha256(content).hexdigest() == ours.stem:
            write_bytes(ours, content)
        return
    try:
        if sha256(aside) == ours.stem:
            os.replace(aside, ours)
            fsync_folder(ours.parent)
    finally:
        aside.unlink(missing_ok=True)
