"""Files that are whole or not there: write aside, fsync, rename, fsync the parent; folders carry a manifest."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calotype.core.errors import CorruptFileError

MANIFEST = "manifest.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: a reader sees the old or the new content, whatever happens meanwhile."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _naming(path, aside):
        make_folder(path.parent)
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors="replace"))  # a path that is not UTF-8 must not stop what has its name in it


def write_json(path: Path, value: Any) -> None:
    write_text(path, _json_text(value))


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The JSON in `path`; a missing or broken file is a one-line error."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorruptFileError(f"{path} is missing") from None
    except (ValueError, UnicodeDecodeError):
        raise CorruptFileError(
            f"{path} is not valid JSON", "it was truncated or altered; restore or remove it"
        ) from None


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON record to a `.jsonl` file in one write, so that a kill leaves at most one broken last line."""
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    make_folder(path.parent)
    with _naming(path), open(path, "ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            line = b"\n" + line  # a kill broke the last line: it must not break this one
        file.write(line)
        file.flush()
        os.fsync(file.fileno())  # what a later checkpoint counts as written must outlive a power cut as it does


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a `.jsonl` file; a broken line (a kill in mid-write) is passed over."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                yield json.loads(line.decode())
            except ValueError:  # also of half a character
                continue


def make_folder(folder: Path) -> None:
    """Make `folder` and what it lies in, durably; one that is there is left alone."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Make folder `final` by `fill(aside)`: filled aside, fsynced, manifest last, then renamed into place.

    The folder is whole or it is not there. An existing `final` is replaced. On any failure (disk full, Ctrl-C) the
    half-made folder is removed and the old state stands.
    """
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with _naming(final, aside):
        make_folder(final.parent)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            fill(aside)
            _write_manifest(aside)
            _put_in_place(aside, final)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        fsync_folder(final.parent)


def _write_manifest(folder: Path) -> None:
    """Make all of `folder` durable, its manifest last."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            fsync_folder(path)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / MANIFEST, {"files": entries})  # which makes the folder itself durable too


def _put_in_place(aside: Path, final: Path) -> None:
    """Rename `aside` to `final`; an old `final` goes in the same instant, where the system can do that."""
    if not final.exists():
        os.rename(aside, final)
    elif _exchange(aside, final):
        shutil.rmtree(aside, ignore_errors=True)
    else:
        discarded = final.with_name(f".{final.name}.{os.getpid()}.old")
        shutil.rmtree(discarded, ignore_errors=True)
        os.rename(final, discarded)
        try:
            os.rename(aside, final)
        except BaseException:
            os.rename(discarded, final)
            raise
        shutil.rmtree(discarded, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths of one folder change names in one step; False where the system or its file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux; RENAME_SWAP of macOS is 2 as well
    try:
        if sys.platform == "darwin":
            return ctypes.CDLL(None).renamex_np(*names, exchange) == 0
        return ctypes.CDLL(None).renameat2(here, names[0], here, names[1], exchange) == 0
    except (AttributeError, TypeError, OSError):  # a C library without it, or none
        return False


@contextmanager
def _naming(final: Path, aside: Path | None = None) -> Iterator[None]:
    """Have what the disk refuses name the file that was to be written, not none and not one beside it."""
    try:
        yield
    except OSError as error:
        if error.filename is None or (aside is not None and str(error.filename).startswith(str(aside))):
            error.filename, error.filename2 = str(final), None
        raise


def verify_folder(folder: Path, *, sealed: bool = False) -> None:
    """Check every file against the folder's manifest; raise CorruptFileError that names the first bad one.

    A `sealed` folder holds nothing that its manifest does not list (hidden files, which desktops drop, apart).
    """
    entries = read_manifest(folder)
    for name, entry in entries.items():
        verify_file(folder / name, entry)
    for path in sorted(folder.rglob("*")) if sealed else ():
        name = path.relative_to(folder).as_posix()
        if name not in entries and name != MANIFEST and not path.name.startswith(".") and not path.is_dir():
            raise CorruptFileError(f"{path} is not in its folder's manifest")


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The size and sha256 of every file of `folder`; a manifest that is not as it was written is a CorruptFileError."""
    path = folder / MANIFEST
    with reading(path):
        manifest, content = read_json(path), path.read_bytes()
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict):
        raise CorruptFileError(f"{path} lists no files")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
            raise CorruptFileError(f"{path} says neither size nor sha256 of {name}")
    if content != _json_text(manifest).encode(errors="replace"):
        raise CorruptFileError(f"{path} was altered: it does not read as it was written")
    return entries


def verify_file(path: Path, entry: dict[str, Any]) -> None:
    """Check one file against its entry in the manifest."""
    with reading(path):
        if not path.is_file():
            raise CorruptFileError(f"{path} is missing")
        if (size := path.stat().st_size) != entry["size"]:
            raise CorruptFileError(f"{path} has {size} bytes, its manifest says {entry['size']}")
        if sha256(path) != entry["sha256"]:
            raise CorruptFileError(f"{path} was altered: its sha256 is not the manifest's")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """To whoever verifies, what the disk does not give back is as good as altered."""
    try:
        yield
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read ({error.strerror})") from None
