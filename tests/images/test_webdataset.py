"""WebDataset shards: samples by their key, captions and classes beside them, any number of shards."""

import json
import tarfile
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.images import open_source
from calotype.images.archive import Limits, shards_source
from calotype.images.folder import shards_in
from tests.images.making import fill, noise_png
from tests.images.test_archive import make_tar

PICTURE = noise_png(0)


def sample(**parts: object) -> dict[str, bytes | str]:
    """{"key.ext": content} of `key__ext=content`."""
    return {
        name.replace("__", "."): json.dumps(content) if isinstance(content, dict) else str(content)
        for name, content in parts.items()
    }


def said(source: object) -> list[tuple[str, str | None, str | None]]:
    return [(p.name, p.caption, p.label) for p in source.pictures]  # type: ignore[attr-defined]


SIDECARS: dict[str, bytes | str] = {
    "0.jpg": PICTURE,
    "0.txt": "a cat\n",
    "0.cls": "3",
    "1.large.png": PICTURE,
    "1.json": json.dumps({"caption": "a  dog", "class": "dog", "url": 1}),
    "2.png": PICTURE,
    "2.caption": "a cow",
    "2.json": json.dumps({"text": "not this", "label": 5}),
    "3.webp": PICTURE,
    "3.json": "{broken",
    "4.png": PICTURE,
    "4.json": json.dumps({"text": ["a", "b"], "shapes": []}),
}
FOUND = [
    ("0.jpg", "a cat", "3"),
    ("1.large.png", "a dog", "dog"),
    ("2.png", "a cow", "5"),
    ("3.webp", None, None),
    ("4.png", None, None),
]


def test_samples_of_one_shard_and_the_same_in_a_folder(tmp_path: Path) -> None:
    for data in (make_tar(tmp_path / "a.tar", SIDECARS), fill(tmp_path / "folder", SIDECARS)):
        source = open_source(data, size=16)
        assert said(source) == FOUND
        assert source.notes == ("1 files beside pictures are no UTF-8 text or JSON object, passed over: 3.json",)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_shards_with_the_same_names(tmp_path: Path, suffix: str) -> None:
    mode = "w" if suffix == "tar" else "w:gz"
    for i in range(3):
        files = {"0.png": noise_png(i), "0.txt": f"picture {i}", "1.png": noise_png(10 + i)}
        (tmp_path / "set").mkdir(exist_ok=True)
        make_tar(tmp_path / "set" / f"shard-{i:03d}.{suffix}", files, mode)
    for data in (tmp_path / "set", str(tmp_path / "set" / f"shard-{{000..002}}.{suffix}"), str(tmp_path / "*" / "*")):
        source = open_source(data, size=16)
        assert said(source)[::2] == [(f"shard-{i:03d}.{suffix}/0.png", f"picture {i}", None) for i in range(3)]
        assert [p.read() for p in source.pictures] == [noise_png(i) for i in (0, 10, 1, 11, 2, 12)]


def test_classes_by_folder_and_metadata_reach_over_shards(tmp_path: Path) -> None:
    """One class a shard is two classes in all; the metadata of a shard speaks of its own pictures."""
    make_tar(tmp_path / "cats.tar", {"cat/0.png": PICTURE})
    make_tar(tmp_path / "dogs.tar", {"dog/0.png": PICTURE, "metadata.jsonl": '{"file_name":"dog/0.png","text":"d"}'})
    assert said(open_source(tmp_path, size=16)) == [
        ("cats.tar/cat/0.png", None, "cat"),
        ("dogs.tar/dog/0.png", "d", "dog"),
    ]


def test_split_by_the_names_of_shards(tmp_path: Path) -> None:
    for name in ("train-000", "train-001", "val-000"):
        make_tar(tmp_path / f"{name}.tar", {"0.png": PICTURE})
    assert [p.split for p in open_source(tmp_path, size=16).pictures] == ["train", "train", "held-out"]
    trained = open_source(str(tmp_path / "train-*.tar"), size=16)
    assert {p.split for p in trained.pictures} == {None}  # or nothing at all would be held out
    make_tar(tmp_path / "extra.tar", {"0.png": PICTURE})
    assert {p.split for p in open_source(tmp_path, size=16).pictures} == {None}


def test_limits_count_over_all_shards(tmp_path: Path) -> None:
    for i in range(3):
        make_tar(tmp_path / f"{i}.tar.gz", {"0.bmp": bytes(2**19)}, "w:gz")
    paths = shards_in(tmp_path)
    assert len(shards_source(paths, "set").pictures) == 3
    with pytest.raises(UserError, match="unpacks to more than"):
        shards_source(paths, "set", Limits(always_allowed=2**20))
    with pytest.raises(UserError, match="more than 2 members"):
        shards_source(paths, "set", Limits(members=2))


def test_a_hostile_or_broken_shard_among_good_ones(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", {"0.png": PICTURE})
    make_tar(tmp_path / "1.tar", {"../0.png": PICTURE})
    with pytest.raises(UserError, match=r"1\.tar: member '\.\./0\.png' lies outside"):
        open_source(tmp_path, size=16)
    (tmp_path / "1.tar").write_bytes(make_tar(tmp_path / "1.tar", {"0.png": PICTURE}).read_bytes()[:700])
    with pytest.raises(UserError, match=r"1\.tar.*check that it was copied whole"):
        open_source(tmp_path, size=16)


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for i in range(60):
        make_tar(tmp_path / f"{i:02d}.tar{'.gz' if i % 2 else ''}", {"0.png": PICTURE}, "w:gz" if i % 2 else "w")
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    try:
        contents = {picture.read() for picture in open_source(tmp_path, size=16).pictures}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert contents == {PICTURE}


def test_parquet_and_tar_in_one_folder(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"0.png": PICTURE})
    fill(tmp_path, {"b.parquet": "x"})
    with pytest.raises(UserError, match="give one kind of them, as a pattern"):
        open_source(tmp_path, size=16)
    assert tarfile.is_tarfile(tmp_path / "a.tar")


def test_patterns_that_fit_nothing(tmp_path: Path) -> None:
    make_tar(tmp_path / "s-0.tar", {"0.png": PICTURE})
    for pattern, says in (("s-{0..1}.tar", r"s-1\.tar: no such file"), ("*.zip", r"\*\.zip: no such file")):
        with pytest.raises(UserError, match=says):
            open_source(str(tmp_path / pattern), size=16)
    with pytest.raises(UserError, match="no such file"):
        open_source("{0..99999999999}.tar", size=16)
