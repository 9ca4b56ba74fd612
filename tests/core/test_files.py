"""Files are whole or not there: a fault or a kill at every system call leaves the old state or the new one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from calotype.core import files
from calotype.core.errors import CorruptFileError

CALLS = ("fsync", "replace", "rename", "open", "mkdir")


class Faults:
    """Counts the calls of core.files that touch the disk, and makes one of them fail or the process die there."""

    def __init__(self, at: int, strike: Callable[[], None]) -> None:
        self.count, self._at, self._strike = 0, at, strike

    def touch(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._strike()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*arguments: Any, **options: Any) -> Any:
            self.touch()
            return function(*arguments, **options)

        return struck

    def opening(self, path: Any, mode: str = "r", **options: Any) -> Any:
        """`open` whose writes fail half-way."""
        self.touch()
        file = open(path, mode, **options)  # noqa: SIM115 - core.files closes it
        return _HalfWriter(file, self) if "w" in mode else file

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, self.around(getattr(os, name)))
        patch.setattr(files, "open", self.opening, raising=False)


class _HalfWriter:
    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __enter__(self) -> "_HalfWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._faults.touch()
        return self._file.write(content[len(content) // 2 :])


class DiskFull(OSError):
    """The injected fault; any other exception is a finding."""


def disk_full() -> None:
    raise DiskFull(errno.ENOSPC, os.strerror(errno.ENOSPC))


def each_fault(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` again and again, its first, second, third ... disk call failing, until none is left to fail."""
    for at in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(at, disk_full)
            faults.install(patch)
            with suppress(DiskFull):
                work()
        yield
        if faults.count < at:
            assert at > 3, "no call was intercepted"
            return


def each_kill(work: Callable[[], None]) -> Iterator[None]:
    """The same with a process that dies there, as by kill -9: nothing of its clean-up runs."""
    for at in range(1, 200):
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                Faults(at, lambda: os._exit(9)).install(patch)
                try:
                    work()
                finally:
                    os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        yield
        if not died:
            assert at > 3, "no call was intercepted"
            return


def fill(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        files.write_text(folder / "weights" / "a.txt", content * 1000)
        files.write_text(folder / "b.txt", content)

    return write


def read_folder(folder: Path) -> str:
    """The content of a folder that `fill` made, checked to be whole."""
    files.verify_folder(folder)
    content = (folder / "b.txt").read_text()
    assert (folder / "weights" / "a.txt").read_text() == content * 1000
    return content


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_old_or_new_after_any_fault(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "state.json"
    for _ in each_fault(lambda: files.write_text(path, "new" * 5000)):
        assert (path.read_text() if path.exists() else None) in (old, "new" * 5000)
        assert [entry.name for entry in tmp_path.iterdir() if entry != path] == []
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_text(old)


def test_a_file_is_old_or_new_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    for _ in each_kill(lambda: files.write_text(path, "new" * 5000)):
        assert path.read_text() in ("old", "new" * 5000)
        path.write_text("old")


def test_a_new_folder_is_whole_or_not_there_after_any_fault(tmp_path: Path) -> None:
    final = tmp_path / "step-00000001"
    for _ in each_fault(lambda: files.write_folder(final, fill("new"))):
        if final.exists():
            assert read_folder(final) == "new"
            files.shutil.rmtree(final)
        assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_whole_or_not_there_after_a_kill(tmp_path: Path) -> None:
    final = tmp_path / "step-00000001"
    for _ in each_kill(lambda: files.write_folder(final, fill("new"))):
        if final.exists():
            assert read_folder(final) == "new"
            files.shutil.rmtree(final)
        assert list(tmp_path.glob("step-*")) == [], "what a kill left aside must not look like a folder of ours"


def test_a_replaced_folder_stands_after_any_fault(tmp_path: Path) -> None:
    final = tmp_path / "model"
    files.write_folder(final, fill("old"))
    for _ in each_fault(lambda: files.write_folder(final, fill("new"))):
        assert read_folder(final) in ("old", "new")
        files.write_folder(final, fill("old"))


def test_a_replaced_folder_is_not_lost_by_a_kill(tmp_path: Path) -> None:
    final = tmp_path / "model"
    files.write_folder(final, fill("old"))
    for _ in each_kill(lambda: files.write_folder(final, fill("new"))):
        kept = final if final.exists() else next(tmp_path.glob(".model.*.old"))
        assert read_folder(kept) in ("old", "new")
        files.write_folder(final, fill("old"))


def test_no_folder_is_left_of_a_filling_that_fails(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_folder(tmp_path / "step", broken)
    assert list(tmp_path.iterdir()) == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _alter, Path.unlink])
@pytest.mark.parametrize("name", ["b.txt", "weights/a.txt", files.MANIFEST])
def test_damage_is_noticed_and_named(tmp_path: Path, damage: Callable[[Path], None], name: str) -> None:
    files.write_folder(tmp_path / "step", fill("x"))
    victim = tmp_path / "step" / name
    if damage is _alter and name == files.MANIFEST:
        text = victim.read_text()
        victim.write_text(text.replace('"size": 1000', '"size": 1001'))
        name = "a.txt"
    elif damage is _truncate and name == files.MANIFEST:
        victim.write_bytes(victim.read_bytes()[:-10])
    else:
        damage(victim)
    with pytest.raises(CorruptFileError, match=name.rpartition("/")[2]):
        files.verify_folder(tmp_path / "step")


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"files": 3}', '{"files": {"b.txt": {}}}', '{"files": {"b.txt": 3}}']
)
def test_a_manifest_of_another_shape_is_corrupt(tmp_path: Path, manifest: str) -> None:
    files.write_folder(tmp_path / "step", fill("x"))
    (tmp_path / "step" / files.MANIFEST).write_text(manifest)
    with pytest.raises(CorruptFileError):
        files.verify_folder(tmp_path / "step")


def test_records_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    assert list(files.read_lines(path)) == []
    records = [{"step": step, "words": "rouge pâle\n"} for step in range(3)]
    for record in records:
        files.append_line(path, record)
    assert list(files.read_lines(path)) == records


def test_a_line_broken_by_a_kill_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    assert list(files.read_lines(path)) == [{"step": 1}]
    files.append_line(path, {"step": 3})
    files.append_line(path, {"step": 4})
    assert list(files.read_lines(path)) == [{"step": 1}, {"step": 3}, {"step": 4}]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"model\.json"):
        files.read_json(path)
