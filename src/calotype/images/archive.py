"""A .tar or .zip of a folder of pictures, read in place: nothing is extracted, so nothing can be written elsewhere.

Names that lead outside, links and devices are refused, and so is whatever unpacks to far more than it weighs. A
compressed tar is unpacked once into an unnamed temporary file, under the same ceilings.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from calotype.core.errors import UserError
from calotype.images.decode import MAX_BYTES, UnreadablePictureError
from calotype.images.folder import Reader, describe, is_hidden
from calotype.images.preparing import no_room
from calotype.images.source import Source

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

    members: int = 5_000_000
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
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        readers = _zip_readers(path, limits) if is_zip else _tar_readers(path, limits)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room(Path(tempfile.gettempdir()), "no room to unpack the archive") from error
        raise UserError(f"{path}: cannot be read ({error})", "check that it was copied whole") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a readable .tar or .zip ({error})", "check that it was copied whole") from error
    return describe(readers, str(path))


def _safe_name(name: str, where: Path) -> str | None:
    """The member's name in '/' form; None for a hidden file; UserError for one that leads outside the folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts:
        return None
    if parts[0] == "/" or ".." in parts or parts[0].endswith(":") or "\0" in name:
        raise UserError(f"{where}: member {name!r} lies outside the archive's folder", _MEND)
    return None if any(is_hidden(part) for part in parts) else "/".join(parts)


def _zip_readers(path: Path, limits: Limits) -> dict[str, Reader]:
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    limits.count(len(members), str(path))
    # The reader never yields more than the size that the directory states, so checking these sizes is enough.
    limits.check(sum(member.file_size for member in members), path.stat().st_size, str(path))
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


class _Tar:
    """An uncompressed tar, or one unpacked into a temporary file; closed when the last reader of it is gone."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.file = _plain_tar(path, limits)
        self._lock = threading.Lock()
        weakref.finalize(self, self.file.close)

    def read(self, offset: int, size: int) -> bytes:
        """One member by its place."""
        if size > MAX_BYTES:
            raise UnreadablePictureError(f"larger than {MAX_BYTES >> 20} MiB")
        with self._lock:
            self.file.seek(offset)
            content = self.file.read(size)
        if len(content) < size:
            raise UnreadablePictureError("the archive ends in the middle of it")
        return content


def _tar_readers(path: Path, limits: Limits) -> dict[str, Reader]:
    tar = _Tar(path, limits)
    readers: dict[str, Reader] = {}
    with tarfile.open(fileobj=tar.file, mode="r:") as archive:
        for count, member in enumerate(_members(archive), start=1):
            limits.count(count, str(path))
            name = _safe_name(member.name, path)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UserError(f"{path}: member {member.name!r} is a link, a device or sparse", _MEND)
            if name is not None:
                readers[name] = partial(tar.read, member.offset_data, member.size)
    return readers


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in order, forgotten once seen: the list that tarfile keeps would cost a kilobyte for each."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


def _plain_tar(path: Path, limits: Limits) -> BinaryIO:
    """The tar as a seekable file."""
    with open(path, "rb") as file:
        magic = file.read(6)
    for start, opener in _COMPRESSIONS:
        if magic.startswith(start):
            with opener(path) as stream:
                return _unpacked(stream, path, limits)
    return open(path, "rb")


def _unpacked(stream: IO[bytes], path: Path, limits: Limits) -> BinaryIO:
    """Everything in `stream` as a temporary file without a name, which the system removes with the process."""
    packed, unpacked = path.stat().st_size, 0
    plain: BinaryIO = tempfile.TemporaryFile(prefix="calotype-")  # noqa: SIM115 - it outlives this call
    try:
        while piece := stream.read(_PIECE):
            unpacked += len(piece)
            limits.check(unpacked, packed, str(path))
            plain.write(piece)
        plain.seek(0)
    except BaseException:
        plain.close()
        raise
    return plain
