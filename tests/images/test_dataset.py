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
from calotype.images import Picture, PictureSet, Source, decode_picture, load_prepared, open_source, prepare
from calotype.images.settings import PictureConfig
from calotype.images.split import held_out_split
from tests.images.making import Heard, encoded, fill, noise_png, quadrants


def pictures(count: int) -> dict[str, bytes | str]:
    return {f"{number:03}.png": noise_png(number) for number in range(count)}


def prepared(
    folder: Path,
    out: Path,
    size: int = 8,
    config: PictureConfig = PictureConfig(),  # noqa: B008 - it is frozen
) -> tuple[PictureSet, Heard]:
    heard = Heard()
    return prepare(open_source(folder, size=size), size, out, heard, config), heard


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
    prepared(photos, tmp_path / "two")  # again, over what is there
    for name in ("pictures.npy", "index.jsonl", "quarantine.jsonl", "duplicates.jsonl", "data.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        *("data.json", "duplicates.jsonl", "index.jsonl", "pictures.npy", "quarantine.jsonl")
    ]


def test_corrupt_pictures_are_counted_listed_and_reported(tmp_path: Path) -> None:
    files = pictures(30) | {"004.png": noise_png(4)[:60], "zero.jpg": b"", "words.gif": "hello", "phone.heic": "?"}
    found, heard = prepared(fill(tmp_path / "photos", files), tmp_path / "data")
    assert (len(found), found.refused) == (29, 4)
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
    assert "4 of 33 files could not be read" in heard.warnings[0]
    assert (tmp_path / "data" / "quarantine.jsonl").is_file()
    loaded = load_prepared(tmp_path / "data")
    assert loaded is not None
    assert loaded.refused == 4


def test_too_many_refused_stop_it_and_leave_the_list(tmp_path: Path) -> None:
    broken: dict[str, bytes | str] = {f"bad{number}.png": "x" for number in range(5)}
    photos = fill(tmp_path / "photos", pictures(16) | broken)
    with pytest.raises(UserError, match=r"5 of 21 files .* more than the share 0.2") as stopped:
        prepared(photos, tmp_path / "data")
    assert "bad0.png and 4 more: not a picture" in str(stopped.value)
    assert str(tmp_path / "data" / "quarantine.jsonl") in stopped.value.what
    assert stopped.value.mend.endswith("--set data.max_refused=0.24")
    assert len(list(read_lines(tmp_path / "data" / "quarantine.jsonl"))) == 5
    assert not (tmp_path / "data" / "pictures.npy").exists()
    assert load_prepared(tmp_path / "data") is None
    found, heard = prepared(photos, tmp_path / "data", config=PictureConfig(max_refused=0.24))  # as the mend says
    assert (len(found), len(heard.warnings)) == (16, 1)


def test_one_bad_file_stops_no_small_set_unless_none_may_be(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", pictures(2) | {"bad.png": "x"})
    assert len(prepared(photos, tmp_path / "data")[0]) == 2
    with pytest.raises(UserError, match=r"more than the share 0 that"):
        prepared(photos, tmp_path / "data", config=PictureConfig(max_refused=0))


def test_a_share_of_exactly_the_limit_goes_on(tmp_path: Path) -> None:
    broken: dict[str, bytes | str] = {f"bad{number}.png": "x" for number in range(4)}
    found, _ = prepared(fill(tmp_path / "photos", pictures(16) | broken), tmp_path / "data")
    assert (len(found), found.refused) == (16, 4)


def test_every_crop_is_a_row_with_a_key_of_its_own(tmp_path: Path) -> None:
    wide: dict[str, bytes | str] = {f"{number}.png": encoded(quadrants(900, 20 + number)) for number in range(4)}
    photos = fill(tmp_path / "photos", wide | {"square.png": noise_png(1)})
    found, _ = prepared(photos, tmp_path / "data", config=PictureConfig(crop="random", crops=3))
    assert found.names == [*(name for name in sorted(wide) for _ in range(3)), "square.png"]
    assert found.crops == [0, 1, 2] * 4 + [0]
    assert found.pixels.shape == (13, 3, 8, 8)
    assert found.digests[:3] == [sha256((photos / "0.png").read_bytes()).hexdigest()] * 3
    assert found.keys.shape == (13, 32)
    assert bytes(found.keys[1]) == sha256(f"{found.digests[0]}:1".encode()).digest()
    assert len({bytes(key) for key in found.keys}) == 13
    assert '"crops": 3' in found.transform
    sides = {(name, bool(side)) for name, side in zip(found.names, found.held_out, strict=True)}
    assert len(sides) == 5  # crops of one file are never on both sides
    facts = json.loads((tmp_path / "data" / "data.json").read_text())
    assert (facts["files"], facts["pictures"], facts["originals"]["elongated"]) == (5, 13, 4)


def test_facts_tell_what_the_files_were(tmp_path: Path) -> None:
    small = encoded(quadrants(6, 9).convert("L"))
    photos = fill(tmp_path / "photos", {"a.jpg": encoded(quadrants(40, 30), "JPEG"), "b.png": small})
    pair = [quadrants(40, 30), quadrants(40, 30).rotate(180)]
    fill(
        photos,
        {
            f"pair.{kind.lower()}": encoded(pair[0], kind, save_all=True, append_images=pair[1:])
            for kind in ("GIF", "TIFF", "MPO")
        },
    )
    prepared(photos, tmp_path / "data")
    originals = json.loads((tmp_path / "data" / "data.json").read_text())["originals"]
    assert originals["formats"] == {"JPEG": 1, "PNG": 1, "GIF": 1, "MPO": 1, "TIFF": 1}
    assert originals["modes"] == {"RGB": 3, "L": 1, "P": 1}
    # a telephone's JPEG with a second picture in it, and a TIFF of two pages, do not move
    assert (originals["smaller"], originals["elongated"], originals["animated"]) == (1, 0, 1)
    assert originals["width"] == {"min": 6, "low": 19, "median": 40, "max": 40}
    assert originals["shorter_side"] == {"min": 6, "low": 15, "median": 30, "max": 30}


@pytest.mark.parametrize(
    ("duplicates", "left", "dropped"),
    [
        ("keep", "abcde", ""),
        ("drop-exact", "abd", "ce"),
        ("drop-near", "ab", "cde"),
    ],
)
def test_copies_are_counted_listed_and_left_out_if_asked(
    tmp_path: Path, duplicates: str, left: str, dropped: str
) -> None:
    """a, a as c; another size of it as d, and d again as e; b is of its own."""
    drawn = quadrants(64, 64)
    first, near, other = encoded(drawn), encoded(drawn.resize((40, 40))), noise_png(7, 64)
    files: dict[str, bytes | str] = {"a": first, "b": other, "c": first, "d": near, "e": near}
    config = PictureConfig.parse({"duplicates": duplicates})
    found, _ = prepared(
        fill(tmp_path / "photos", {f"{name}.png": content for name, content in files.items()}),
        tmp_path / "data",
        32,
        config,
    )
    assert (found.equal_copies, found.near_copies, found.dropped) == (2, 1, len(dropped))
    told = f"2 copies by their bytes, 1 by their looks{f', {len(dropped)} left out' if dropped else ''}"
    assert found.copies == told
    assert found.names == [f"{name}.png" for name in left]
    for row, name in enumerate(left):
        content = files[name]
        assert isinstance(content, bytes)
        assert np.array_equal(found.pixels[row].numpy(), decode_picture(content, 32))
    listed = {record["path"]: record for record in read_lines(tmp_path / "data" / "duplicates.jsonl")}
    assert {name: (record["copy_of"], record["kind"]) for name, record in listed.items()} == {
        "c.png": ("a.png", "equal"),
        "d.png": ("a.png", "near"),
        "e.png": ("d.png", "equal"),
    }
    assert [name for name, record in listed.items() if record["dropped"]] == [f"{name}.png" for name in dropped]
    assert np.load(tmp_path / "data" / "pictures.npy").shape == (len(left), 3, 32, 32)


def test_copies_on_both_sides_of_the_split_are_told(tmp_path: Path) -> None:
    drawn = quadrants(64, 64)
    contents = [encoded(drawn), encoded(drawn.resize((40, 40))), noise_png(1), noise_png(2)]
    sides = ["train", "held-out", "train", "held-out"]
    source = Source(
        "x",
        [Picture(str(row), lambda row=row: contents[row], split=sides[row]) for row in range(4)],  # type: ignore[arg-type, misc]
    )
    heard = Heard()
    prepare(source, 32, tmp_path / "data", heard)
    assert "1 copies have their like on the other side" in heard.warnings[0]
    assert json.loads((tmp_path / "data" / "data.json").read_text())["copies_across_split"] == 1


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
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 10))
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


def test_adding_pictures_moves_none_across(tmp_path: Path) -> None:
    """Prepared from files: 40 more, named before and after the old ones, and copies of old ones under other names."""
    old = {f"m{name}": content for name, content in pictures(60).items()}
    before, _ = prepared(fill(tmp_path / "old", old), tmp_path / "one")
    new = {f"{'az'[number % 2]}{number}.png": noise_png(1000 + number) for number in range(40)}
    copies = {f"copy-{name}": content for name, content in list(old.items())[:20]}
    after, _ = prepared(fill(tmp_path / "new", old | new | copies), tmp_path / "two")
    assert len(after) == 120
    side = dict(zip(after.names, after.held_out.tolist(), strict=True))
    assert before.held_out.any()
    assert {name: side[name] for name in before.names} == dict(zip(before.names, before.held_out.tolist(), strict=True))
    assert all(side[f"copy-{name}"] == side[name] for name in list(old)[:20])


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


def test_several_crops_of_the_middle_are_refused() -> None:
    assert PictureConfig(crop="random", crops=3).transform(16).crops == 3
    with pytest.raises(UserError, match=r"data.crop=random"):
        PictureConfig(crops=3)
