"""Beside each other stand the pictures that belong together."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.core.progress import Silent
from calotype.images.pixels import to_uint8
from calotype.inspection.report import made
from tests.inspection.report.fake_run import Copier, FakeModel, make_pictures


def pictures_in(html: str) -> list[np.ndarray]:
    """The pixels (3, h, w) of every picture, in order."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(b64decode(content)))).transpose(2, 0, 1) for content in found]


def test_a_mount_holds_the_sample_the_real_picture_and_the_nearest_one(tmp_path: Path) -> None:
    """Asked for the words of pictures 4, 8 and 12, this model gives back the first three pictures."""
    pictures = make_pictures(tmp_path, [f"thing {k}" for k in range(40)], blocks=4)
    model, ids = Copier(pictures, captioned=True), [4, 8, 12]
    asked = made.ask_for_pictures(model, pictures, ids, 50, Silent())
    assert asked.words == ["thing 4", "thing 8", "thing 12"]
    assert [near.row for near in asked.near] == [0, 1, 2]
    html = made.made_from_words(model, pictures, ids, asked).html()
    shown = pictures_in(html)
    assert len(shown) == 9
    for k, row in enumerate(ids):
        large, real, nearest = shown[3 * k : 3 * k + 3]
        assert np.array_equal(large, to_uint8(asked.drawn.images[k]).numpy())
        assert np.array_equal(real, pictures.pixels[row].numpy())
        assert np.array_equal(nearest, pictures.pixels[k].numpy())
    assert [int(seed) for seed in re.findall(r"\(seed (\d+)\)", html)] == [50, 51, 52]


def test_only_pictures_of_a_class_stand_below_its_name(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [None] * 60, ["cat", "dog", "owl"] * 20, blocks=4)
    model = FakeModel(classes=["cat", "dog", "owl"])
    asked = made.ask_for_classes(model, pictures, Silent())
    assert [asked.words.count(label) for label in model.classes] == [8] * 3
    assert asked.filmed == ["cat", "dog", "owl"]
    html = made.made_by_class(model, pictures, asked).html()
    for block, label in zip(re.split("<h3>", html)[1:], model.classes, strict=True):
        assert block.startswith(label)
        assert block.count(f"Made by the model: {label} (seed") == 8
        real = [int(name) for name in re.findall(r"Real picture: (\d+)\.png", block)]
        assert len(real) == 8
        assert {pictures.labels[row] for row in real} == {label}
        assert not pictures.held_out[real].any()


@pytest.mark.parametrize("count", [20, 15])
def test_many_classes_are_cut_and_that_is_said(tmp_path: Path, count: int) -> None:
    names = [f"class {k:02}" for k in range(count)]
    pictures = make_pictures(tmp_path, [None] * 60, [names[k % count] for k in range(60)])
    model = FakeModel(classes=names)
    asked = made.ask_for_classes(model, pictures, Silent())
    assert len(asked.words) <= 64
    html = made.made_by_class(model, pictures, asked).html()
    assert html.count("<h3>") == min(count, 16)
    assert ("4 more classes are not shown." in html) == (count == 20)
