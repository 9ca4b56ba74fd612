"""Shards: found by key, found out when damaged, shared by link, and cut alike after every kill."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calotype.core import shards
from calotype.core.errors import CorruptFileError
from calotype.core.shards import Keys, ShardStore, cut, hashed, read_shard


def keys_of(*numbers: int) -> Keys:
    return np.frombuffer(b"".join(hashed(str(number)) for number in numbers), dtype=np.uint8).reshape(-1, 32)


def add(store: ShardStore, *numbers: int) -> Path:
    return store.add(keys_of(*numbers), {"values": torch.tensor(numbers, dtype=torch.float32)})


def spoil(path: Path) -> None:
    """Another value in the first row; its keys are as they were."""
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    path.write_bytes(content)


def looked_up(store: ShardStore, *numbers: int) -> list[float | None]:
    places = store.locate(keys_of(*numbers))
    found = [read_shard(path)["values"] for path in places.paths]
    return [float(found[s][r]) if s >= 0 else None for s, r in zip(places.shard, places.row, strict=True)]


def test_rows_are_found_by_key_in_whichever_shard(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    assert looked_up(store, 1, 2) == [None, None]
    add(store, 5, 1, 3)
    add(store, 2)
    add(store, 7, 8)
    assert looked_up(store, 8, 2, 9, 1, 1, 7) == [8, 2, None, 1, 1, 7]
    assert store.missing(keys_of(9, 1, 4, 9, 2, 6)).tolist() == [0, 2, 5], "of equal keys the first, in order"


def test_a_key_is_all_of_its_32_bytes(tmp_path: Path) -> None:
    """Keys that differ in their last byte alone, zero bytes at either end."""
    store, keys = ShardStore(tmp_path), np.zeros((4, 32), dtype=np.uint8)
    keys[1, 31], keys[2, 0], keys[3, 15] = 1, 1, 255
    store.add(keys[[2, 0, 1]], {"values": torch.tensor([2.0, 0.0, 1.0])})
    places = store.locate(keys)
    assert places.row.tolist() == [1, 2, 0, -1]


def test_damaged_shards_are_named_and_their_rows_missing_again(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    whole, altered, shorter = add(store, 1, 2), add(store, 3, 4), add(store, 5, 6)
    assert store.verify() == []
    spoil(altered)
    shorter.write_bytes(shorter.read_bytes()[:-9])
    with pytest.raises(CorruptFileError, match="not whole"):
        store.locate(keys_of(1))
    assert store.verify() == sorted([altered.name, shorter.name])
    assert store.paths == [whole]
    assert store.missing(keys_of(1, 2, 3, 4, 5, 6)).tolist() == [2, 3, 4, 5]
    assert add(store, 3, 4) == altered, "the same rows make the same file"


def test_rows_are_taken_over_from_others_that_are_whole(tmp_path: Path) -> None:
    ours, theirs, others = (ShardStore(tmp_path / name) for name in ("ours", "theirs", "others"))
    add(ours, 1, 2)
    shared, useless, damaged = add(theirs, 2, 3), add(theirs, 8, 9), add(theirs, 4)
    spoil(damaged)
    add(others, 3, 5)
    folders = [tmp_path / "nowhere", ours.folder, theirs.folder, others.folder]
    assert ours.adopt(folders, keys_of(1, 2, 3, 4, 5)) == 2
    assert looked_up(ours, 1, 2, 3, 4, 5) == [1, 2, 3, None, 5]
    link = ours.folder / shared.name
    assert link.stat().st_ino == shared.stat().st_ino
    assert not (ours.folder / useless.name).exists()
    assert ours.verify() == []
    shared.unlink()
    assert looked_up(ours, 3) == [3]
    assert not list(ours.folder.glob(".*"))


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.ENOSYS])
def test_where_no_link_can_be_made_a_shard_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, "another file system, or one without links")

    ours, theirs = ShardStore(tmp_path / "ours"), ShardStore(tmp_path / "theirs")
    path, damaged = add(theirs, 2, 3), add(theirs, 4)
    spoil(damaged)
    monkeypatch.setattr("os.link", refuse)
    assert ours.adopt([theirs.folder], keys_of(3, 4)) == 1
    assert (ours.folder / path.name).read_bytes() == path.read_bytes()


def test_what_others_keep_to_themselves_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, others = (ShardStore(tmp_path / name) for name in ("ours", "theirs", "others"))
    add(theirs, 1)
    add(others, 1, 2)
    paths = ShardStore.paths.fget

    def closed(store: ShardStore) -> list[Path]:
        if store == theirs:
            raise PermissionError(13, "closed", str(store.folder))
        return list(paths(store))  # type: ignore[misc]

    monkeypatch.setattr(ShardStore, "paths", property(closed))
    assert ours.adopt([theirs.folder, others.folder], keys_of(1, 2)) == 2


def test_leftovers_of_a_kill_are_no_shards_and_go(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    path = add(store, 1)
    left = tmp_path / f".{path.name}.77.tmp"
    left.write_bytes(b"half")
    assert store.verify() == []
    store.clear()
    assert store.paths == list(tmp_path.iterdir()) == [path]


@given(st.integers(0, 60), st.integers(1, 9), st.data())
def test_what_whole_units_leave_is_cut_into_the_same_units(count: int, size: int, data: st.DataObject) -> None:
    rows = np.flatnonzero(np.arange(count) % 3)
    units = [unit.tolist() for unit in cut(rows, size)]
    done = data.draw(st.sets(st.integers(0, len(units) - 1))) if units else set()
    gone = {row for i in done for row in units[i]}
    left = np.array([row for row in rows if row not in gone], dtype=np.int64)
    assert [unit.tolist() for unit in cut(left, size)] == [unit for i, unit in enumerate(units) if i not in done]


def test_what_the_disk_cannot_give_back_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add(ShardStore(tmp_path), 3)

    def broken(where: Path) -> str:
        raise OSError(failure, "no", str(where))

    monkeypatch.setattr(shards, "sha256", broken)
    failure = errno.EACCES
    with pytest.raises(PermissionError):
        ShardStore(tmp_path).verify()
    failure = errno.EIO
    assert ShardStore(tmp_path).verify() == [path.name]
    assert not path.exists()
