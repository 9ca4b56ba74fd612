"""Archives read like the folder they hold; hostile ones are refused in one line and write nothing."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.images import UnreadablePictureError, open_source
from calotype.images import archive as archive_module
from calotype.images.archive import Limits, archive_source
from tests.images.making import fill, noise_png

FILES: dict[str, bytes | str] = {
    "photos/metadata.jsonl": '{"file_name": "cat/1.png", "text": "a cat"}\n',
    "photos/cat/1.png": noise_png(1),
    "photos/cat/._1.png": b"left by a Mac",
    "photos/dog/2.png": noise_png(2),
    "photos/dog/2.txt": "a dog",
}


def make_tar(path: Path, files: dict[str, bytes | str], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add(archive, name, content.encode() if isinstance(content, str) else content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def make_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip", "windows.zip"])
def test_archive_reads_like_its_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photos.{kind}"
    if kind == "windows.zip":
        make_zip(path, {name.replace("/", "\\"): content for name, content in FILES.items()})
    elif kind == "zip":
        make_zip(path, FILES)
    else:
        make_tar(path, FILES, f"w:{kind.partition('.')[2]}")
    folder = open_source(fill(tmp_path / "folder", FILES), size=16)
    source = open_source(path, size=16)
    assert [(p.name, p.caption, p.label, p.read()) for p in source.pictures] == [
        (p.name, p.caption, p.label, p.read()) for p in folder.pictures
    ]
    assert [(p.caption, p.label) for p in source.pictures] == [("a cat", "cat"), ("a dog", "dog")]


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "C:\\1.png", "..\\1.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_outside_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    make = make_tar if kind == "tar" else make_zip
    path = make(tmp_path / f"evil.{kind}", {"good.png": noise_png(1), name: noise_png(2)})
    with pytest.raises(UserError, match="outside the archive's folder: unpack it yourself"):
        open_source(path, size=16)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.png", noise_png(1))
        add(archive, "link.png", type=kind, linkname="/etc/passwd")
    with pytest.raises(UserError, match=r"'link\.png' is a link"):
        open_source(path, size=16)


def test_zip_link(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match="link or a device"):
        open_source(path, size=16)


def test_archives_that_unpack_without_end(tmp_path: Path) -> None:
    """Zeros by the megabyte: refused by the ceiling, long before they would fill a disk."""
    limits = Limits(always_allowed=2**20)
    endless: dict[str, bytes | str] = {f"{number}.bmp": bytes(2**20) for number in range(4)}
    for path in (make_zip(tmp_path / "a.zip", endless), make_tar(tmp_path / "a.tar.gz", endless, "w:gz")):
        with pytest.raises(UserError, match="unpacks to more than"):
            archive_source(path, limits)
        assert len(archive_source(path).pictures) == 4  # small in absolute terms, so the default lets it pass


def test_too_many_members(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{number}.png": b"" for number in range(12)}
    for path in (make_zip(tmp_path / "a.zip", files), make_tar(tmp_path / "a.tar", files)):
        with pytest.raises(UserError, match="more than 10 members"):
            archive_source(path, Limits(members=10))


def test_one_huge_member_is_refused_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_BYTES", 1000)
    files: dict[str, bytes | str] = {"big.png": bytes(2000), "good.png": b"x"}
    for path in (make_zip(tmp_path / "a.zip", files), make_tar(tmp_path / "a.tar", files)):
        big, good = open_source(path, size=16).pictures
        with pytest.raises(UnreadablePictureError, match="larger than"):
            big.read()
        assert good.read() == b"x"


def test_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    """The directory says 10 bytes, the data unpacks to a million: never more than stated is read."""
    path = make_zip(tmp_path / "a.zip", {"1.png": bytes(10**6)})
    content = path.read_bytes()
    path.write_bytes(content.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UnreadablePictureError, match="corrupt in the archive"):
        open_source(path, size=16).pictures[0].read()


def test_broken_archives(tmp_path: Path) -> None:
    whole_tar, whole_zip = make_tar(tmp_path / "a.tar", FILES), make_zip(tmp_path / "a.zip", FILES)
    packed = make_tar(tmp_path / "a.tgz", FILES, "w:gz")
    for path in (whole_tar, whole_zip, packed):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 5])
        with pytest.raises(UserError, match="check that it was copied whole"):
            open_source(path, size=16)
    for content in (b"", b"this is a letter, not an archive" * 40):
        other = tmp_path / "letter.tar"
        other.write_bytes(content)
        with pytest.raises(UserError, match="letter"):
            open_source(other, size=16)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_header_does_not_hide_what_comes_after(tmp_path: Path, mode: str) -> None:
    """tarfile takes it for the end of the archive."""
    files: dict[str, bytes | str] = {f"{number}.png": noise_png(number) for number in range(4)}
    content = make_tar(tmp_path / "whole.tar", files).read_bytes()
    third = content.index(b"2.png")
    packed = gzip.compress if mode == "w:gz" else bytes
    path = tmp_path / "a.tar"
    for damaged in (content[:third] + b"\xff" + content[third + 1 :], content[: third + 100]):
        path.write_bytes(packed(damaged))
        with pytest.raises(UserError, match=r"damaged after member '1\.png': check that it was copied whole"):
            open_source(path, size=16)
    for whole in (content, content[: content.rindex(b"IEND") + 512]):  # the zeros at the end are often left out
        path.write_bytes(packed(whole[: len(whole) // 512 * 512]))
        assert len(open_source(path, size=16).pictures) == 4


def test_corrupt_member_is_refused_alone(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.png": noise_png(1), "2.png": noise_png(2)})
    content = bytearray(path.read_bytes())
    content[80] ^= 0xFF  # inside the first member's data
    path.write_bytes(content)
    first, second = open_source(path, size=16).pictures
    with pytest.raises(UnreadablePictureError, match="corrupt in the archive"):
        first.read()
    assert second.read() == noise_png(2)


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"3.png": noise_png(3)}).read_bytes()
    path = make_tar(tmp_path / "a.tar", {"1.png": noise_png(1), "inner.zip": inner})
    assert [picture.name for picture in open_source(path, size=16).pictures] == ["1.png"]
