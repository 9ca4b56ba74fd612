"""Which pictures are shown, and how they are embedded."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.inspection.report import gallery
from tests.inspection.report.fake_run import flat_picture, make_pictures

WORDS = [f"thing {k}" for k in range(40)]


def picture_in(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(b64decode(content)))


def test_small_pictures_are_embedded_without_loss() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(picture_in(gallery.data_uri(Image.fromarray(pixels)))), pixels)


def test_large_pictures_are_embedded_small() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 300, 3), dtype=np.uint8)
    uri = gallery.data_uri(Image.fromarray(pixels))
    assert picture_in(uri).size == (96, 192)
    assert len(uri) < 60_000


def test_the_wanted_prompts_are_shown_in_their_order_and_only_from_training(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, WORDS)
    assert [pictures.captions[i] for i in gallery.showcase_ids(pictures, ["thing 9", "thing 2"], 2)] == [
        "thing 9",
        "thing 2",
    ]
    chosen = gallery.showcase_ids(pictures, ["a stranger"], 8)
    assert len({pictures.captions[i] for i in chosen}) == 8
    assert not pictures.held_out[chosen].any()


def test_held_out_captions_that_training_never_saw_come_first(tmp_path: Path) -> None:
    unseen, flag = gallery.held_out_ids(make_pictures(tmp_path / "a", WORDS), 6)
    assert flag
    assert len(unseen) == 6
    pictures = make_pictures(tmp_path / "b", ["the sea", "a forest"] * 20)
    ids, flag = gallery.held_out_ids(pictures, 6)
    assert not flag
    assert len(ids) == len({pictures.captions[i] for i in ids})
    assert pictures.held_out[ids].all()


def test_every_label_has_its_turn(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [None] * 40, ["a"] * 30 + ["b"] * 6 + ["c"] * 4)
    chosen = gallery.spread(pictures, range(40), 9)
    labels = [pictures.labels[i] for i in chosen]
    assert [labels.count(name) for name in "abc"] == [3, 3, 3]
    assert len(set(chosen)) == 9


def test_a_sprite_holds_its_frames_side_by_side() -> None:
    frames = torch.stack([torch.full((3, 16, 16), value) for value in (-1.0, 0.0, 1.0)])
    plate, count = gallery.sprite(frames, "film")
    picture = picture_in(plate.uri)
    assert (count, picture.size) == (3, (48, 16))
    assert [picture.getpixel((8 + 16 * k, 8))[0] for k in range(3)] == pytest.approx([0, 128, 255], abs=2)


def test_a_damaged_sheet_is_passed_over(tmp_path: Path) -> None:
    assert gallery.open_sheet(tmp_path / "none.png") is None
    flat_picture(7).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:50])
    assert gallery.open_sheet(tmp_path / "half.png") is None
    assert gallery.open_sheet(tmp_path / "whole.png") is not None
