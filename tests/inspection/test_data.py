"""What a look at a set leaves behind, shows and advises."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calotype.core.errors import UserError
from calotype.core.files import read_lines
from calotype.images.settings import PictureConfig
from calotype.inspection.data import describe, look_at
from calotype.inspection.data_verdict import good_for, to_mend
from tests.images.making import Heard, encoded, fill, noise_png, quadrants


def healthy(**changes: Any) -> dict[str, Any]:
    """Figures with nothing to mend; `changes` replace sections' entries: files={"refused": 3}."""
    found: dict[str, Any] = {
        "size": 64,
        "pictures": 5000,
        "files": {"all": 5000, "readable": 5000, "refused": 0},
        "originals": {
            "smaller": 0,
            "elongated": 0,
            "shorter_side": {"min": 64, "low": 64, "median": 90, "max": 200},
        },
        "copies": {"equal": 0, "near": 0, "dropped": 0, "across_split": 0, "examples": []},
        "classes": {"count": 2, "unlabelled": 0, "pictures": {"cat": 2600, "dog": 2400}},
        "captions": {"count": 5000, "missing": 0, "distinct": 900, "too_long": 0, "most_frequent": ["a cat", 90]},
        "colour": {"grey": 0, "dark": 0, "light": 0, "flat": 0, "examples": {"flat": []}},
        "split": {"train": 4750, "held_out": 250},
    }
    for section, entries in changes.items():
        found[section] = {**found[section], **entries} if isinstance(entries, dict) else entries
    return found


def test_nothing_to_mend() -> None:
    assert to_mend(healthy(), PictureConfig()) == []
    assert good_for(healthy()) == (
        "4,750 pictures: a small model with some variety, that makes pictures by prompt or class."
    )


@pytest.mark.parametrize(
    ("changes", "what", "action"),
    [
        ({"files": {"refused": 3}}, "3 files cannot be read", "nothing stops"),
        ({"files": {"refused": 2000}}, "training stops at more than 20%", "--set data.max_refused=0.41"),
        ({"copies": {"equal": 300}}, "300 pictures are copies", "--set data.duplicates=drop-exact"),
        ({"copies": {"near": 300}}, "300 pictures are copies", "--set data.duplicates=drop-near"),
        ({"copies": {"near": 2, "across_split": 1}}, "1 copies have their like", "--set data.duplicates=drop-near"),
        ({"split": {"train": 60}}, "few pictures", "add more"),
        ({"classes": {"pictures": {"cat": 4900, "dog": 100}}}, "'cat' has 4,900 pictures, 'dog' 100", "of 'dog'"),
        ({"classes": {"unlabelled": 7}}, "7 pictures have no class", "folder"),
        ({"originals": {"smaller": 900, "shorter_side": {"low": 40}}}, "900 files are smaller than 64", "--size 32"),
        ({"originals": {"smaller": 900, "shorter_side": {"low": 20}}}, "900 files are smaller than 64", "larger orig"),
        ({"originals": {"shorter_side": {"low": 300}}}, "more detail than 64 px", "--size 128, which takes about 4"),
        ({"size": 96, "originals": {"shorter_side": {"low": 130}}}, "more detail than 96 px", "takes about 1.8 times"),
        ({"originals": {"elongated": 2000}}, "2,000 files are at least twice", "--set data.crop=random"),
        ({"captions": {"missing": 9}}, "9 pictures have no caption", "caption them"),
        ({"captions": {"distinct": 1}}, "all captions are the same ('a cat')", "different"),
        ({"captions": {"most_frequent": ["a cat", 2000]}}, "2,000 captions are the same", "different"),
        ({"captions": {"too_long": 2}}, "2 captions have more than 180 words", "first"),
        ({"captions": {"count": 0}, "classes": {"count": 0, "pictures": {}}}, "neither captions nor", ".txt"),
        ({"colour": {"grey": 1000}}, "1,000 of 5,000 pictures are grey", "black and white"),
        ({"colour": {"flat": 2, "examples": {"flat": ["a.png", "b.png"]}}}, "(a.png, b.png)", "belong"),
    ],
)
def test_each_fault_is_named_with_what_to_do(changes: dict[str, Any], what: str, action: str) -> None:
    [advice] = to_mend(healthy(**changes), PictureConfig())
    assert what in advice.what
    assert action in advice.action


def test_one_bad_file_is_said_to_stop_training_only_where_it_does() -> None:
    few = {"all": 4, "readable": 3, "refused": 1}
    assert to_mend(healthy(files=few), PictureConfig())[0].action.endswith("nothing stops")
    assert "training stops" in to_mend(healthy(files=few), PictureConfig(max_refused=0))[0].what


def test_what_was_done_about_it_is_not_advised_again() -> None:
    assert to_mend(healthy(copies={"near": 300, "dropped": 300}), PictureConfig()) == []
    assert to_mend(healthy(originals={"elongated": 2000}), PictureConfig(crop="random", crops=2)) == []
    assert to_mend(healthy(files={"refused": 900}), PictureConfig())[0].action.endswith("nothing stops")


@pytest.mark.parametrize(
    ("count", "words"), [(5, "by heart"), (60, "--from"), (900, "one kind"), (90_000, "of its own")]
)
def test_what_a_set_is_good_for_depends_on_its_size(count: int, words: str) -> None:
    assert words in good_for(healthy(split={"train": count}))


def photos(folder: Path) -> Path:
    files: dict[str, bytes | str] = {f"cat/{seed}.png": noise_png(seed, 24) for seed in range(9)}
    files |= {"cat/0.txt": "a striped cat", "dog/long.jpg": encoded(quadrants(90, 24), "JPEG")}
    files |= {"dog/same.png": noise_png(0, 24), "dog/bad\x1b[31m.png": "<html>", "dog/empty.png": ""}
    return fill(folder, files)


def test_a_look_writes_sheet_lists_and_figures(tmp_path: Path) -> None:
    heard = Heard()
    found = look_at(photos(tmp_path / "pets"), size=16, out=tmp_path / "out", reporter=heard)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("contact-sheet.png", "duplicates.jsonl", "quarantine.jsonl", "survey.json")
    ]
    assert json.loads((tmp_path / "out" / "survey.json").read_text()) == found
    assert len(list(read_lines(tmp_path / "out" / "quarantine.jsonl"))) == found["files"]["refused"] == 2
    assert [record["path"] for record in read_lines(tmp_path / "out" / "duplicates.jsonl")] == ["dog/same.png"]
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.size[0] == 4 + 8 * (16 * 6 + 4)  # eight to a row, each 96 px wide
    assert heard.warnings == []  # what there is to say stands in the figures
    assert found["train"].endswith("pets --size 16")
    text = dict(pair for pair in describe(found) if pair[0])
    assert text["classes"].startswith("2: cat 9, dog 2")
    assert text["files"] == "11 readable, 2 refused"


def test_the_sheet_shows_pictures_from_all_over_the_set(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"{row:03}.bmp": encoded(Image.new("RGB", (8, 8), (row, 255 - row, 90)), "BMP") for row in range(200)
    }
    look_at(fill(tmp_path / "many", files), size=8, out=tmp_path / "out")
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        pixels = set(sheet.get_flattened_data() if hasattr(sheet, "get_flattened_data") else sheet.getdata())
    assert {(row, 255 - row, 90) for row in range(0, 200, 4)} <= pixels
    assert not {(row, 255 - row, 90) for row in range(1, 200, 4)} & pixels


def test_settings_are_those_of_training(tmp_path: Path) -> None:
    found = look_at(
        photos(tmp_path / "pets"),
        size=16,
        out=tmp_path / "out",
        overrides=["data.duplicates=drop-exact", "data.crop=random", "data.crops=2"],
    )
    assert (found["copies"]["dropped"], found["pictures"]) == (1, 11)  # ten files, one of which is wide
    assert found["train"].endswith("--set data.duplicates=drop-exact --set data.crop=random --set data.crops=2")
    with pytest.raises(UserError, match=r"data\.dupes.*did you mean"):
        look_at(tmp_path / "pets", size=16, out=tmp_path / "out", overrides=["data.dupes=keep"])


def test_one_readable_picture_is_enough_and_none_is_told(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"a.png": noise_png(1), "b.png": "x", "c.png": "x"})
    assert look_at(one, size=16, out=tmp_path / "out")["files"] == {"all": 3, "readable": 1, "refused": 2}
    none = fill(tmp_path / "none", {"b.png": "x", "c.png": "x"})
    with pytest.raises(UserError, match=r"none of 2 files can be read \(b.png and 1 more: not a picture") as told:
        look_at(none, size=16, out=tmp_path / "out2")
    assert str(tmp_path / "out2" / "quarantine.jsonl") in told.value.mend
    assert [path.name for path in (tmp_path / "out2").iterdir()] == ["quarantine.jsonl"]
    assert len(list(read_lines(tmp_path / "out2" / "quarantine.jsonl"))) == 2


def test_what_a_killed_look_left_is_cleared(tmp_path: Path) -> None:
    fill(tmp_path / "out" / ".pixels-abc", {"pictures.npy": "x"})
    look_at(fill(tmp_path / "one", {"a.png": noise_png(1)}), size=16, out=tmp_path / "out")
    assert not list((tmp_path / "out").glob(".pixels-*"))
