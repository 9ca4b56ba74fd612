"""Files that are whole or not there: write aside, fsync, rename, fsync the parent; folders carry a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calotype.core.errors import CorruptFileError

MANIFEST = "manifest.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: a reader sees the old or the new content, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    with open(path, "ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            line = b"\n" + line  # a kill broke the last line: it must not break this one
        file.write(line)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a `.jsonl` file; a broken line (a kill in mid-write) is passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


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
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        fill(aside)
        entries = {}
        for path in sorted(p for p in aside.rglob("*") if p.is_file()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            entries[str(path.relative_to(aside))] = {"size": path.stat().st_size, "sha256": sha256(path)}
        write_json(aside / MANIFEST, {"files": entries})
        if final.exists():
            discarded = final.with_name(f".{final.name}.{os.getpid()}.old")
            shutil.rmtree(discarded, ignore_errors=True)
            os.rename(final, discarded)
            try:
                os.rename(aside, final)
            except BaseException:
                os.rename(discarded, final)
                raise
            shutil.rmtree(discarded, ignore_errors=True)
        else:
            os.rename(aside, final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_folder(final.parent)


def verify_folder(folder: Path) -> None:
    """Check every file against the folder's manifest; raise CorruptFileError that names the first bad one."""
    manifest = read_json(folder / MANIFEST)
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict):
        raise CorruptFileError(f"{folder / MANIFEST} lists no files")
    for name, entry in entries.items():
        path = folder / name
        if not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
            raise CorruptFileError(f"{folder / MANIFEST} says neither size nor sha256 of {name}")
        if not path.is_file():
            raise CorruptFileError(f"{path} is missing")
        if path.stat().st_size != entry["size"]:
            raise CorruptFileError(f"{path} has {path.stat().st_size} bytes, its manifest says {entry['size']}")
        if sha256(path) != entry["sha256"]:
            raise CorruptFileError(f"{path} was altered: its sha256 is not the manifest's")
