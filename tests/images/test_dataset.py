"""Prepared sets: complete or not there, refusals counted, a split that adding pictures does not disturb."""

import json
import shutil
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.core.errors import UserError
from calotype.core.files import read_lines
from calotype.images import Picture, PictureSet, Source, decode_picture, load_prepared, open_source, prepare, preparing
from calotype.images.dataset import held_out_split
from tests.images.making import Heard, fill, noise_png


def pictures(count: int) -> dict[str, bytes | str]:
    return {f"{number:03}.png": noise_png(number) for number in range(count)}


def prepared(folder: Path, out: Path, size: int = 8) -> tuple[PictureSet, Heard]:
    heard = Heard()
    return prepare(open_source(folder, size=size), size, out, heard), heard


def hashes(count: int) -> list[str]:
    return [sha256(str(number).encode()).hexdigest() for number in range(count)]


def test_rows_are_the_decoded_pictures_in_order(tmp_path: Path) -> None:
    files = {f"{label}/{name}": content for label in ("b", "a") for name, content in pictures(20).items()}
    found, heard = prepared(fill(tmp_path / "photos", files), tmp_path / "data")
    assert found.pixels.shape == (40, 3, 8, 8)
    assert found.pixels.dtype == torch.uint8
    assert found.names == sorted(files)
    assert found.classes == ["a", "b"]
    assert found.has_labels
    assert not found.has_captions
    assert (found.size, len(found), heard.done, heard.warnings) == (8, 40, 40, [])
    for row, name in enumerate(found.names):
        content = files[name]
        assert isinstance(content, bytes)
        assert np.array_equal(found.pixels[row].numpy(), decode_picture(content, 8))
    assert torch.equal(torch.cat([found.train_ids, found.held_out_ids]).sort().values, torch.arange(40))


def test_loading_gives_the_same_and_writes_stay_private(tmp_path: Path) -> None:
    found, _ = prepared(fill(tmp_path / "photos", pictures(12)), tmp_path / "data")
    found.pixels[0] = 0  # copy-on-write: the file does not change
    again = load_prepared(tmp_path / "data")
    assert again is not None
    assert again.pixels[0].any()
    assert torch.equal(again.pixels[1:], found.pixels[1:])
    assert torch.equal(again.held_out, found.held_out)
    assert (again.names, again.source) == (found.names, str(tmp_path / "photos"))
    plain = np.load(tmp_path / "data" / "pictures.npy", allow_pickle=False)
    assert plain.shape == (12, 3, 8, 8)


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", pictures(9))
    for out in ("one", "two"):
        prepared(photos, tmp_path / out)
    prepared(photos, tmp_path / "two")
    for name in ("pictures.npy", "index.jsonl", "quarantine.jsonl", "data.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        *("data.json", "index.jsonl", "pictures.npy", "quarantine.jsonl")
    ]


def test_corrupt_pictures_are_counted_listed_and_reported(tmp_path: Path) -> None:
    files = pictures(10) | {"004.png": noise_png(4)[:60], "zero.jpg": b"", "words.gif": "hello", "phone.heic": "?"}
    found, heard = prepared(fill(tmp_path / "photos", files), tmp_path / "data")
    assert (len(found), found.refused) == (9, 4)
    assert "004.png" not in found.names
    listed = {record["path"]: record for record in read_lines(tmp_path / "data" / "quarantine.jsonl")}
    assert {name: record["bytes"] for name, record in listed.items()} == {
        "004.png": 60,
        "phone.heic": 1,
        "words.gif": 5,
        "zero.jpg": 0,
    }
    assert "empty" in listed["zero.jpg"]["reason"]
    assert len(heard.warnings) == 1
    assert "4 of 13 files could not be read" in heard.warnings[0]
    assert (tmp_path / "data" / "quarantine.jsonl").is_file()
    loaded = load_prepared(tmp_path / "data")
    assert loaded is not None
    assert loaded.refused == 4


def test_more_than_half_refused_goes_on_with_a_warning(tmp_path: Path) -> None:
    broken: dict[str, bytes | str] = {f"bad{number}.png": "x" for number in range(5)}
    found, heard = prepared(fill(tmp_path / "photos", pictures(3) | broken), tmp_path / "data")
    assert len(found) == 3
    assert "more than half" in heard.warnings[0]


@pytest.mark.parametrize("good", [0, 1])
def test_fewer_than_two_readable_pictures(tmp_path: Path, good: int) -> None:
    files = pictures(good) | {"bad.png": "x"}
    with pytest.raises(UserError, match=rf"{good} of {good + 1} pictures can be read \(bad.png: not a picture"):
        prepared(fill(tmp_path / "photos", files), tmp_path / "data")
    assert load_prepared(tmp_path / "data") is None
    assert len(list(read_lines(tmp_path / "data" / "quarantine.jsonl"))) == 1


def test_incomplete_or_altered_is_not_loaded(tmp_path: Path) -> None:
    assert load_prepared(tmp_path / "nothing") is None
    prepared(fill(tmp_path / "photos", pictures(4)), tmp_path / "whole")

    def damaged(name: str, content: bytes | None) -> PictureSet | None:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", copy)
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        return load_prepared(copy)

    for name in ("pictures.npy", "index.jsonl", "data.json"):
        content = (tmp_path / "whole" / name).read_bytes()
        assert damaged(name, None) is None
        assert damaged(name, content[: len(content) // 2]) is None
        assert damaged(name, content) is not None
    index = (tmp_path / "whole" / "index.jsonl").read_bytes()
    assert damaged("index.jsonl", index.replace(b'"train"', b'"Train"', 1)) is None
    assert damaged("data.json", b'{"format": 99}') is None
    assert damaged("data.json", b"[]") is None


def test_an_interruption_leaves_nothing_that_loads(tmp_path: Path) -> None:
    """Ctrl-C half-way, over an older complete set: neither the old nor a half-made one is taken for the new."""
    photos = fill(tmp_path / "photos", pictures(6))
    prepared(photos, tmp_path / "data")
    source = open_source(photos, size=8)

    def interrupt() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Source("x", [*source.pictures, Picture("last", interrupt)]), 8, tmp_path / "data", Heard())
    assert load_prepared(tmp_path / "data") is None
    assert not list((tmp_path / "data").glob("*.tmp"))
    assert len(prepared(photos, tmp_path / "data")[0]) == 6


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda _: usage(10, 0, 10))
    with pytest.raises(UserError, match="disk full"):
        prepared(fill(tmp_path / "photos", pictures(3)), tmp_path / "data")


def test_captions_with_odd_characters_survive(tmp_path: Path) -> None:
    captions = ["line\u2028separator \x85 é 日本", "lone \ud800 surrogate"]
    source = Source("x", [Picture(f"{i}", lambda i=i: noise_png(i), caption=captions[i]) for i in range(2)])  # type: ignore[misc]
    found = prepare(source, 8, tmp_path, Heard())
    assert found.captions == [captions[0], "lone ? surrogate"]
    assert found.has_captions


def test_notes_and_origin_are_passed_on(tmp_path: Path) -> None:
    source = open_source(fill(tmp_path / "photos", pictures(2)), size=8)
    heard = Heard()
    noted = Source("mine", source.pictures, attribution="by me", licence="CC0", notes=("look here",))
    found = prepare(noted, 8, tmp_path / "data", heard)
    assert heard.warnings == ["look here"]
    assert (found.source, found.attribution, found.licence) == ("mine", "by me", "CC0")
    assert json.loads((tmp_path / "data" / "data.json").read_text())["pictures"] == 2


def test_split_share_and_stability() -> None:
    known = hashes(4000)
    split = held_out_split(known, [None] * 4000)
    assert 0.04 < split.count("held-out") / 4000 < 0.06
    fewer = held_out_split(known[:500], [None] * 500)
    assert fewer == split[:500]  # 3,500 more pictures moved none of the first
    order = np.random.default_rng(0).permutation(500)
    assert held_out_split([known[i] for i in order], [None] * 500) == [fewer[i] for i in order]


@pytest.mark.parametrize("count", [8, 9, 15, 40])
def test_small_sets_hold_out_at_least_one_and_never_all(count: int) -> None:
    high = [f"{16 + number:02x}".ljust(64, "0") for number in range(count)]  # all above the share
    assert held_out_split(high, [None] * count) == ["held-out"] + ["train"] * (count - 1)
    low = ["0" * 63 + str(number % 10) for number in range(count)]  # all below it
    assert held_out_split(low, [None] * count).count("train") == 1


def test_seven_pictures_may_all_be_trained_on() -> None:
    assert held_out_split(["f" * 64] * 7, [None] * 7) == ["train"] * 7
    assert held_out_split([], []) == []


def test_a_source_says_its_split() -> None:
    low, high = "0" * 64, "f" * 64
    assert held_out_split([low, high, high], ["train", "held-out", None]) == ["train", "held-out", "train"]
    assert held_out_split([high] * 9, ["train"] * 9) == ["train"] * 9
