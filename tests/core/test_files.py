"""Files are whole or not there: a fault or a kill at every system call leaves the old state or the new one."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calotype.core import files
from calotype.core.errors import CorruptFileError
from tests.disk_faults import FAULTS, each_fault, each_kill


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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


def restore(path: Path, old: str | None) -> None:
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_text(old)


@pytest.mark.parametrize(("error", "lasting"), FAULTS)
@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_old_or_new_after_any_fault(tmp_path: Path, old: str | None, error: int, lasting: bool) -> None:
    path = tmp_path / "state.json"
    restore(path, old)
    for raised in each_fault(lambda: files.write_text(path, "new" * 5000), error, lasting):
        now = path.read_text() if path.exists() else None
        assert now in ((old, "new" * 5000) if raised else ("new" * 5000,))
        assert lasting or [entry.name for entry in tmp_path.iterdir() if entry != path] == []
        restore(path, old)


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_old_or_new_after_a_kill(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "state.json"
    restore(path, old)
    for _ in each_kill(lambda: files.write_text(path, "new" * 5000)):
        assert (path.read_text() if path.exists() else None) in (old, "new" * 5000)
        restore(path, old)


@pytest.mark.parametrize(("error", "lasting"), FAULTS)
def test_a_new_folder_is_whole_or_not_there_after_any_fault(tmp_path: Path, error: int, lasting: bool) -> None:
    final = tmp_path / "run" / "step-00000001"
    for raised in each_fault(lambda: files.write_folder(final, fill("new")), error, lasting):
        assert raised or final.exists()
        if final.exists():
            assert read_folder(final) == "new"
        left = [path.name for path in final.parent.glob("*") if path != final]
        assert not left if not lasting else all(name.startswith(".") for name in left)
        shutil.rmtree(final.parent, ignore_errors=True)


def test_a_new_folder_is_whole_or_not_there_after_a_kill(tmp_path: Path) -> None:
    final = tmp_path / "step-00000001"
    for _ in each_kill(lambda: files.write_folder(final, fill("new"))):
        if final.exists():
            assert read_folder(final) == "new"
            shutil.rmtree(final)
        assert list(tmp_path.glob("step-*")) == [], "what a kill left aside must not look like a folder of ours"


@pytest.fixture(params=[True, False], ids=["swapping", "without a swap"])
def swaps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """Whether two folders change names in one step here: as this system can, and as if it could not."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    can = files._exchange(tmp_path / "one", tmp_path / "other")
    if not request.param:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    return can and request.param


@pytest.mark.parametrize(("error", "lasting"), FAULTS)
def test_a_replaced_folder_stands_after_any_fault(tmp_path: Path, swaps: bool, error: int, lasting: bool) -> None:
    final = tmp_path / "model"
    files.write_folder(final, fill("old"))
    for raised in each_fault(lambda: files.write_folder(final, fill("new")), error, lasting):
        kept = final if final.exists() or swaps or not lasting else next(tmp_path.glob(".model.*.old"))
        assert read_folder(kept) in (("old", "new") if raised else ("new",))
        files.write_folder(final, fill("old"))


def test_a_replaced_folder_is_not_lost_by_a_kill(tmp_path: Path, swaps: bool) -> None:
    final = tmp_path / "model"
    files.write_folder(final, fill("old"))
    for _ in each_kill(lambda: files.write_folder(final, fill("new"))):
        kept = final if final.exists() or swaps else next(tmp_path.glob(".model.*.old"))
        assert read_folder(kept) in ("old", "new")
        files.write_folder(final, fill("old"))


def test_all_of_a_folder_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut keeps a name and loses what was not fsynced, folders among it."""
    done: list[int] = []  # inodes, 0 for the renaming
    final = tmp_path / "run" / "step"

    def carelessly(folder: Path) -> None:
        (folder / "weights").mkdir()
        (folder / "weights" / "a.txt").write_text("a")
        (folder / "b.txt").write_text("b")

    def rename(one: Path, other: Path) -> None:
        os.replace(one, other)
        done.append(0)

    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "rename", rename)
    files.write_folder(final, carelessly)
    before, after = done[: done.index(0)], done[done.index(0) :]
    inside = [final, *final.rglob("*")]
    assert len(inside) == 5
    assert {path.stat().st_ino for path in (tmp_path, *inside)} <= {*before}
    assert final.parent.stat().st_ino in after


@pytest.mark.parametrize(
    "write", [lambda path: files.write_text(path, "x"), lambda path: files.write_folder(path, fill("x"))]
)
def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    for fault in each_fault(lambda: write(tmp_path / "new"), errno.ENOSPC, False):
        assert fault is None or fault.filename == str(tmp_path / "new")


def test_no_folder_is_left_of_a_filling_that_fails(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_folder(tmp_path / "step", broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_no_damage_to_a_manifest_passes(tmp_path: Path, damage: str) -> None:
    """Every bit flipped, every shorter length; one that says the same in other words is refused as well."""
    files.write_folder(tmp_path / "step", fill("x"))
    manifest = tmp_path / "step" / files.MANIFEST
    whole = manifest.read_bytes()
    for k in range(len(whole) * 8 if damage == "flip" else len(whole)):
        spoilt = bytearray(whole[: k if damage == "cut" else None])
        if damage == "flip":
            spoilt[k // 8] ^= 1 << k % 8
        manifest.write_bytes(spoilt)
        with pytest.raises(CorruptFileError):
            files.verify_folder(tmp_path / "step")
    manifest.write_bytes(whole)
    files.verify_folder(tmp_path / "step")


@pytest.mark.parametrize("name", ["more.txt", "weights/more.txt"])
def test_a_sealed_folder_holds_nothing_unlisted(tmp_path: Path, name: str) -> None:
    files.write_folder(tmp_path / "step", fill("x"))
    (tmp_path / "step" / ".DS_Store").touch()  # a desktop's, which nothing reads
    files.verify_folder(tmp_path / "step", sealed=True)
    (tmp_path / "step" / name).touch()
    files.verify_folder(tmp_path / "step")
    with pytest.raises(CorruptFileError, match=r"more\.txt"):
        files.verify_folder(tmp_path / "step", sealed=True)


def test_what_the_disk_does_not_give_back_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_folder(tmp_path / "step", fill("x"))

    def unreadable(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sha256", unreadable)
    with pytest.raises(CorruptFileError, match=r"txt cannot be read \(Input/output error\)"):
        files.verify_folder(tmp_path / "step")


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


def test_half_a_character_costs_only_its_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes('{"step": 1}\n{"words": "pâ'.encode()[:-1])
    files.append_line(path, {"step": 3})
    assert list(files.read_lines(path)) == [{"step": 1}, {"step": 3}]


def records(path: Path) -> list[dict[str, Any]]:
    """What was appended; then the file as it was before."""
    files.append_line(path, {"step": "next"})
    found = list(files.read_lines(path))
    path.write_bytes(b'{"step": 1}\n')
    assert (found[0], found[-1]) == ({"step": 1}, {"step": "next"})
    return found[1:-1]


@pytest.mark.parametrize(("error", "lasting"), FAULTS)
def test_a_record_is_appended_or_not_after_any_fault(tmp_path: Path, error: int, lasting: bool) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"step": 1})
    for raised in each_fault(lambda: files.append_line(path, {"step": 2, "loss": 0.5}), error, lasting):
        assert records(path) in ([[], [{"step": 2, "loss": 0.5}]] if raised else [[{"step": 2, "loss": 0.5}]])


def test_a_record_is_appended_or_not_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"step": 1})
    for _ in each_kill(lambda: files.append_line(path, {"step": 2, "loss": 0.5})):
        assert records(path) in ([], [{"step": 2, "loss": 0.5}])


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"model\.json"):
        files.read_json(path)
