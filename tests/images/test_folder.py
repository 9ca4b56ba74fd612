"""Labels, captions and splits as the folder, its metadata and its sidecars give them."""

import json
import os
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.images import Picture, Source, UnreadablePictureError, open_source
from tests.images.making import fill, noise_png

PICTURE = noise_png(0)


def rows(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def open_folder(folder: Path, files: dict[str, bytes | str]) -> dict[str, tuple[str | None, str | None, str | None]]:
    """Name -> (caption, label, split)."""
    source = open_source(fill(folder, files), size=16)
    return {picture.name: (picture.caption, picture.label, picture.split) for picture in source.pictures}


def test_plain_folder_is_sorted_and_skips_what_is_no_picture(tmp_path: Path) -> None:
    files = {"b.PNG": PICTURE, "a.jpg": PICTURE, "notes.md": "x", ".hidden.png": PICTURE, "__MACOSX/a.jpg": PICTURE}
    assert open_folder(tmp_path, files) == {"a.jpg": (None, None, None), "b.PNG": (None, None, None)}
    assert open_source(tmp_path, size=16).pictures[0].read() == PICTURE
    assert open_source(str(tmp_path), size=16).name == str(tmp_path)


def test_class_per_folder(tmp_path: Path) -> None:
    found = open_folder(tmp_path, {"cat/1.png": PICTURE, "dog/1.png": PICTURE, "dog/old/2.png": PICTURE})
    assert {name: label for name, (_, label, _) in found.items()} == {
        "cat/1.png": "cat",
        "dog/1.png": "dog",
        "dog/old/2.png": "old",
    }


def test_one_sub_folder_is_no_class(tmp_path: Path) -> None:
    found = open_folder(tmp_path, {"photos/2020/1.png": PICTURE, "photos/2.png": PICTURE})
    assert {label for _, label, _ in found.values()} == {None}
    nested = open_folder(tmp_path / "nested", {"photos/cat/1.png": PICTURE, "photos/dog/1.png": PICTURE})
    assert [label for _, label, _ in nested.values()] == ["cat", "dog"]


def test_split_folders(tmp_path: Path) -> None:
    found = open_folder(
        tmp_path,
        {f"{split}/{label}/{split}.png": PICTURE for split in ("train", "test") for label in ("cat", "dog")},
    )
    assert found["train/cat/train.png"] == (None, "cat", "train")
    assert found["test/dog/test.png"] == (None, "dog", "held-out")
    only_train = open_folder(tmp_path / "other", {"train/1.png": PICTURE, "train/2.png": PICTURE})
    assert set(only_train.values()) == {(None, None, None)}
    without_train = open_folder(tmp_path / "third", {"test/1.png": PICTURE, "val/2.png": PICTURE})
    assert {split for _, _, split in without_train.values()} == {None}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata(tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        text = rows(
            {"file_name": "1.png", "text": " a red\n apple ", "label": 7},
            {"file_name": "./sub/2.png", "caption": "é", "other": 1},
        )
    else:
        text = '\ufefffile_name,text,label\r\n1.png,"a red\n apple",7\r\nsub/2.png,é,\r\n'
    found = open_folder(tmp_path, {f"metadata.{kind}": text, "1.png": PICTURE, "sub/2.png": PICTURE, "3.png": PICTURE})
    assert found == {
        "1.png": ("a red apple", "7", None),
        "sub/2.png": ("é", None, None),
        "3.png": (None, None, None),
    }


def test_metadata_beside_class_folders_and_in_sub_folders(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "cat/metadata.jsonl": rows({"file_name": "1.png", "text": "a cat"}),
        "cat/1.png": PICTURE,
        "dog/1.png": PICTURE,
        "dog/1.txt": "a dog\n",
    }
    assert open_folder(tmp_path, files) == {"cat/1.png": ("a cat", "cat", None), "dog/1.png": ("a dog", "dog", None)}


def test_metadata_rows_without_a_picture_are_told(tmp_path: Path) -> None:
    text = rows({"file_name": "1.png", "text": "x"}, {"file_name": "gone.png", "text": "y"})
    source = open_source(fill(tmp_path, {"metadata.jsonl": text, "1.png": PICTURE}), size=16)
    assert source.notes == ("1 of 2 metadata rows name a picture that is not there",)


def test_metadata_knows_names_however_their_accents_are_written(tmp_path: Path) -> None:
    """Composed and decomposed, either way round: file systems and editors differ."""
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    for i, (file, named) in enumerate(((composed, decomposed), (decomposed, composed))):
        text = rows({"file_name": named, "text": "tables"}, {"file_name": "b.png", "text": "b"})
        source = open_source(
            fill(tmp_path / str(i), {"metadata.jsonl": text, file: PICTURE, "b.png": PICTURE}), size=16
        )
        assert {picture.name: picture.caption for picture in source.pictures} == {file: "tables", "b.png": "b"}
        assert source.notes == ()


def test_a_number_that_is_none_is_no_caption(tmp_path: Path) -> None:
    """A table with empty cells, written as JSON by Python."""
    text = rows({"file_name": "1.png", "text": float("nan"), "label": 2.5}, {"file_name": "2.png", "text": "x"})
    found = open_folder(tmp_path, {"metadata.jsonl": text, "1.png": PICTURE, "2.png": PICTURE})
    assert found == {"1.png": (None, "2.5", None), "2.png": ("x", None, None)}


def test_what_is_said_twice_of_a_picture_is_told(tmp_path: Path) -> None:
    """One file may have the captions and another the classes; of two captions the last one counts."""
    apart = {"metadata.csv": "file_name,text\n1.png,one\n", "metadata.jsonl": rows({"file_name": "1.png", "label": 7})}
    source = open_source(fill(tmp_path / "apart", {**apart, "1.png": PICTURE}), size=16)
    assert [(p.caption, p.label) for p in source.pictures] == [("one", "7")]
    assert source.notes == ()
    several = "file_name,text\n1.png,one\n1.png,two\n1.png,two\n"
    source = open_source(fill(tmp_path / "several", {"metadata.csv": several, "1.png": PICTURE}), size=16)
    assert [p.caption for p in source.pictures] == ["two"]
    assert source.notes == ("1 metadata rows say something else of a picture than an earlier one, and count",)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.jsonl", rows({"file_name": "other.png", "text": "x"}), "names no picture"),
        ("metadata.jsonl", rows({"file_name": "../1.png", "text": "x"}), "names no picture"),
        ("metadata.jsonl", rows({"text": "x"}), "line 1: no file_name"),
        ("metadata.jsonl", rows({"file_name": "1.png", "other": 1}), "neither text nor label"),
        ("metadata.jsonl", rows({"file_name": "1.png", "text": ["a"]}), "text is a list"),
        ("metadata.jsonl", '{"file_name": "1.png", "text": "x"}\n{"file', "line 2: not a JSON object"),
        ("metadata.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("metadata.jsonl", b"\xff\xfe\0", "not UTF-8"),
        ("metadata.csv", "name,text\n1.png,x\n", "no file_name"),
    ],
)
def test_broken_metadata(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_source(fill(tmp_path, {name: text, "1.png": PICTURE}), size=16)


def test_sidecars(tmp_path: Path) -> None:
    found = open_folder(
        tmp_path,
        {"1.png": PICTURE, "1.txt": "\ufeffa  red\napple\n", "2.png": PICTURE, "2.txt": " \n", "3.png": PICTURE},
    )
    assert [caption for caption, _, _ in found.values()] == ["a red apple", None, None]


def test_what_is_beside_one_picture_says_nothing_of_another(tmp_path: Path) -> None:
    files = {"2.jpg": PICTURE, "2.txt": "two", "2.5.jpg": PICTURE, "3.5.jpg": PICTURE, "3.txt": "three"}
    files |= {"4.JPG": PICTURE, "4.txt": "four", "4.5.JPG": PICTURE}
    found = open_folder(tmp_path, files)
    assert {name: caption for name, (caption, _, _) in found.items()} == {
        "2.5.jpg": None,
        "2.jpg": "two",
        "3.5.jpg": "three",
        "4.5.JPG": None,
        "4.JPG": "four",
    }


def test_sidecars_in_other_encodings_are_passed_over_and_told(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{name}.png": PICTURE for name in "abcd"}
    files |= {"a.txt": "a café".encode("utf-16"), "b.txt": "a café".encode("latin-1"), "c.txt": "é" * 2**15 + "é"}
    source = open_source(fill(tmp_path, files | {"d.txt": "x" + "é" * 2**15}), size=16)
    captions = [picture.caption for picture in source.pictures]
    assert captions == [None, None, "é" * 2**15, "x" + "é" * (2**15 - 1)]  # cut at 64 KiB, even amid a letter
    assert source.notes == ("2 files beside pictures are no UTF-8 text or JSON object, passed over: a.txt",)


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(tmp_path / "nowhere", size=16)
    with pytest.raises(UserError, match="no such file or folder"):
        open_source("x" * 5000, size=16)
    with pytest.raises(UserError, match="no pictures in it: give a folder"):
        open_source(fill(tmp_path, {"readme.txt": "x"}), size=16)


def test_links_and_pipes(tmp_path: Path) -> None:
    """A linked picture is read, a dangling link is refused when read, and a pipe does not block."""
    target = fill(tmp_path / "elsewhere", {"1.png": PICTURE}) / "1.png"
    folder = fill(tmp_path / "photos", {"0.png": PICTURE})
    (folder / "1.png").symlink_to(target)
    (folder / "2.png").symlink_to(folder / "gone.png")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "3.png")
    pictures = {picture.name: picture for picture in open_source(folder, size=16).pictures}
    assert list(pictures) == ["0.png", "1.png", "2.png"]
    assert pictures["1.png"].read() == PICTURE
    with pytest.raises(UnreadablePictureError, match="cannot be read"):
        pictures["2.png"].read()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("1.png", PICTURE, "one file of a set: give the folder"),
        ("metadata.csv", "x", "one file of a set"),
        ("data-00000-of-00001.arrow", b"ARROW1\0\0", "one part of a saved data set: give the folder"),
        ("notes.md", "words", r"not a readable .tar or .zip .*\.parquet, \.npy or \.npz"),
    ],
)
def test_files_that_are_no_set(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    fill(tmp_path, {name: content})
    with pytest.raises(UserError, match=says):
        open_source(tmp_path / name, size=16)


def test_a_pattern_of_pictures_is_told_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"1.png": PICTURE, "2.png": PICTURE})
    with pytest.raises(UserError, match=f"files of a set: give the folder they lie in, {tmp_path}"):
        open_source(str(tmp_path / "*.png"), size=16)


def test_a_source_of_ones_own_is_taken_as_it_is() -> None:
    own = Source("own", [Picture("1", lambda: PICTURE)])
    assert open_source(own, size=16) is own
