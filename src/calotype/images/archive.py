"""A .tar or .zip of a folder of pictures, or tar shards, read in place: nothing is extracted to a name of theirs.

Names that lead outside, links and devices are refused, and so is whatever unpacks to far more than it weighs.
Compressed tars are unpacked once into an unnamed temporary file, under the same ceilings. A plain tar is opened anew
for each member, so any number of shards fits the system's limit on open files.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from calotype.core.errors import UserError
from calotype.images.decode import MAX_BYTES, UnreadablePictureError
from calotype.images.folder import is_hidden
from calotype.images.layout import Reader, describe
from calotype.images.row_file import no_room
from calotype.images.source import POSSIBLE, Source

_MEND = "unpack it yourself, look at what it holds, and give the folder"
_PIECE = 2**20
_COMPRESSIONS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold. Pictures hardly compress, so honest archives unpack to about their own size."""

    members: int = 20_000_000  # of all shards; each costs about 500 bytes of memory
    ratio: float = 100.0
    always_allowed: int = 2**30  # bytes below which the ratio does not matter: small sets of flat drawings

    def check(self, unpacked: int, packed: int, where: str) -> None:
        if unpacked > max(self.always_allowed, self.ratio * packed):
            raise UserError(
                f"{where}: unpacks to more than {unpacked / 2**20:,.0f} MiB from {packed / 2**20:,.2f} MiB", _MEND
            )

    def count(self, members: int, where: str) -> None:
        if members > self.members:
            raise UserError(f"{where}: more than {self.members:,} members", _MEND)


LIMITS = Limits()


def archive_source(path: Path, limits: Limits = LIMITS) -> Source:
    """The pictures of an archive, by the same conventions as a folder. UserError for a hostile or broken one."""
    return describe({"": _readers(path, _Spool(limits))}, str(path))


def shards_source(paths: Sequence[Path], where: str, limits: Limits = LIMITS) -> Source:
    """The pictures of several archives: one after the other, each with its own metadata and sidecars."""
    spool = _Spool(limits)
    folder = os.path.commonpath([path.parent for path in paths])
    return describe({Path(os.path.relpath(path, folder)).as_posix(): _readers(path, spool) for path in paths}, where)


def _readers(path: Path, spool: _Spool) -> dict[str, Reader]:
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        return _zip_readers(path, spool) if is_zip else _tar_readers(path, spool)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room(Path(tempfile.gettempdir()), "no room to unpack the archive") from error
        raise UserError(f"{path}: cannot be read ({error})", "check that it was copied whole") from error
    except UserError:
        raise
    except Exception as error:  # the unpackers raise nearly anything on damaged bytes
        mend = f"check that it was copied whole; {POSSIBLE}"
        raise UserError(f"{path}: not a readable .tar or .zip ({error})", mend) from error


def _safe_name(name: str, where: Path) -> str | None:
    """The member's name in '/' form; None for a hidden file; UserError for one that leads outside the folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts:
        return None
    if parts[0] == "/" or ".." in parts or parts[0].endswith(":") or "\0" in name:
        raise UserError(f"{where}: member {name!r} lies outside the archive's folder", _MEND)
    return None if any(is_hidden(part) for part in parts) else "/".join(parts)


def _zip_readers(path: Path, spool: _Spool) -> dict[str, Reader]:
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    spool.count(len(members), path)
    # The reader never yields more than the size that the directory states, so checking these sizes is enough.
    spool.limits.check(sum(member.file_size for member in members), path.stat().st_size, str(path))
    readers: dict[str, Reader] = {}
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{path}: member {member.filename!r} is a link or a device", _MEND)
        name = _safe_name(member.filename, path)
        if name is not None and not member.is_dir():
            readers[name] = partial(_read_zip, archive, member)
    return readers


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """One member; ZipFile serialises access to its file, so several threads may read."""
    if member.file_size > MAX_BYTES:
        raise UnreadablePictureError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with archive.open(member) as file:
            return file.read(MAX_BYTES)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise UnreadablePictureError(f"corrupt in the archive: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or an unknown compression
        raise UnreadablePictureError(f"cannot be unpacked: {error}") from error


class _Spool:
    """Where compressed tars are unpacked, one after the other into one file without a name; counts against the limits.

    The system removes the file with the process, or when the last reader of it is gone.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._members = self._packed = self._unpacked = 0
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def count(self, members: int, path: Path) -> None:
        self._members += members
        self.limits.count(self._members, str(path))

    def unpack(self, stream: IO[bytes], path: Path) -> BinaryIO:
        """Append everything in `stream`; the file, at the place where that begins."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="calotype-")  # noqa: SIM115 - it outlives this call
            weakref.finalize(self, self._file.close)
        start = self._file.seek(0, os.SEEK_END)
        self._packed += path.stat().st_size
        while piece := stream.read(_PIECE):
            self._unpacked += len(piece)
            self.limits.check(self._unpacked, self._packed, str(path))
            self._file.write(piece)
        self._file.seek(start)
        return self._file

    def read(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        with self._lock:
            return _piece(self._file, offset, size)


def _tar_readers(path: Path, spool: _Spool) -> dict[str, Reader]:
    with open(path, "rb") as file:
        magic = file.read(6)
        opener = next((opener for start, opener in _COMPRESSIONS if magic.startswith(start)), None)
        if opener is None:
            file.seek(0)
            return _located(file, path, spool, partial(_read_tar, path))
    with opener(path) as stream:
        plain = spool.unpack(stream, path)
    return _located(plain, path, spool, spool.read)


def _located(file: BinaryIO, path: Path, spool: _Spool, read: Callable[[int, int], bytes]) -> dict[str, Reader]:
    """Members of the tar that begins where `file` stands, each to be read by its place and size."""
    readers: dict[str, Reader] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in _members(archive, path):
            spool.count(1, path)
            name = _safe_name(member.name, path)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UserError(f"{path}: member {member.name!r} is a link, a device or sparse", _MEND)
            if name is not None:
                readers[name] = partial(read, member.offset_data, member.size)
    return readers


def _read_tar(path: Path, offset: int, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return _piece(file, offset, size)
    except OSError as error:
        raise UnreadablePictureError(f"the archive cannot be read: {error.strerror or error}") from error


def _piece(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > MAX_BYTES:
        raise UnreadablePictureError(f"larger than {MAX_BYTES >> 20} MiB")
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise UnreadablePictureError("the archive ends in the middle of it")
    return content


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Members in order, forgotten once seen: the list that tarfile keeps would cost a kilobyte for each.

    Raises UserError where a damaged header hides those behind it: tarfile takes it for the end.
    """
    last = ""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        last = member.name
        yield member
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise UserError(f"{path}: damaged after member {last!r}", "check that it was copied whole")
