"""The embedded default: count, captions, split, and pictures that show what their caption says."""

import importlib.util
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import UserError
from calotype.images import SHOWCASE, Source, decode_picture, open_source, prepare
from calotype.images import openmoji as openmoji_module
from tests.images.making import Heard


@pytest.fixture(scope="module")
def openmoji() -> Source:
    return open_source("openmoji", size=32)


def test_count_and_captions(openmoji: Source) -> None:
    captions = [picture.caption for picture in openmoji.pictures]
    assert 1_900 <= len(captions) <= 1_940
    assert len(set(captions)) == len(captions)
    assert set(SHOWCASE) <= set(captions)
    assert len(set(SHOWCASE)) == 32
    assert {"flag: France", "flag: Scotland", "dog face", "dog", "keycap 5", "piñata"} <= set(captions)
    assert not any(caption is None or "skin tone" in caption or ":" in caption.strip("flag:") for caption in captions)
    assert sum(str(caption).startswith("flag: ") for caption in captions) > 250
    assert "France" not in captions


def test_licence_travels_along(openmoji: Source) -> None:
    assert openmoji.licence == "CC BY-SA 4.0"
    assert "OpenMoji" in openmoji.attribution


def test_split(openmoji: Source) -> None:
    split = {picture.caption: picture.split for picture in openmoji.pictures}
    assert {split[prompt] for prompt in SHOWCASE} == {"train"}
    counts = Counter(split.values())
    assert 0.03 < counts["held-out"] / len(split) < 0.07
    other_size = open_source("openmoji", size=64)
    assert split == {picture.caption: picture.split for picture in other_size.pictures}


def test_pictures_show_their_caption(openmoji: Source) -> None:
    pictures = {picture.caption: picture for picture in openmoji.pictures}

    def pixels(caption: str) -> np.ndarray:
        return decode_picture(pictures[caption].read(), 32).astype(int)

    flag = pixels("flag: France")
    blue, white, red = flag[:, 16, 6], flag[:, 16, 16], flag[:, 16, 26]
    assert blue[2] > blue[0] + 60
    assert white.min() > 240
    assert red[0] > red[2] + 100
    heart = pixels("red heart")
    assert heart[0, 16, 16] > 150
    assert heart[1, 16, 16] < 80
    assert (heart[:, 0, 0] == 255).all()  # transparent outside: white


def test_prepared(openmoji: Source, tmp_path: Path) -> None:
    some = Source(openmoji.name, openmoji.pictures[::40], openmoji.attribution, openmoji.licence)
    heard = Heard()
    found = prepare(some, 32, tmp_path, heard)
    assert (found.refused, heard.warnings, len(found)) == (0, [], len(some.pictures))
    assert [bool(row) for row in found.held_out] == [picture.split == "held-out" for picture in some.pictures]
    assert not found.has_labels


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "resvg_py" else importlib.util.find_spec(name, package)

    monkeypatch.setattr(openmoji_module, "find_spec", find)
    with pytest.raises(UserError, match=r"pip install 'calotype\[demo\]'"):
        open_source("openmoji", size=32)
