"""numpy arrays: shapes, types and ranges come out as the pictures that were meant; captions and labels follow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calotype.core.errors import UserError
from calotype.images import Source, UnreadablePictureError, decode_picture, open_source
from calotype.images.arrays import array_source
from calotype.images.source import source_name
from tests.images.making import quadrants

SQUARE = np.asarray(quadrants(16, 16))
PICTURES = np.stack([SQUARE, SQUARE[::-1], SQUARE[:, ::-1]])
GREY = PICTURES.mean(axis=3).round().astype(np.uint8)


def decoded(source: Source) -> NDArray[np.uint8]:
    """(n, h, w, 3)"""
    return np.stack([decode_picture(p.read(), 16) for p in source.pictures]).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "given",
    [
        PICTURES,
        PICTURES.transpose(0, 3, 1, 2),
        PICTURES.astype(np.uint16) * 257,
        PICTURES.astype(np.int64),
        PICTURES.astype(np.float64),
        PICTURES.astype(np.float32) / 255,
        PICTURES.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1,
        PICTURES.astype(">f4"),
        np.asfortranarray(PICTURES),
        np.concatenate([PICTURES, np.full_like(PICTURES[..., :1], 255)], axis=3),
    ],
    ids=["bytes", "first", "16", "64", "floats255", "floats1", "signed", "big", "fortran", "alpha"],
)
def test_colour_of_any_shape_type_and_range(given: NDArray[Any], tmp_path: Path) -> None:
    assert np.array_equal(decoded(open_source(given, size=16)), PICTURES)
    np.save(tmp_path / "a.npy", given)
    source = open_source(tmp_path / "a.npy", size=16)
    assert np.array_equal(decoded(source), PICTURES)
    assert [picture.name for picture in source.pictures] == ["0", "1", "2"]
    assert bool(source.notes) == (given.dtype != np.uint8)


@pytest.mark.parametrize("given", [GREY, GREY[..., None], GREY[:, None], GREY / 255.0, GREY / 127.5 - 1])
def test_grey(given: NDArray[Any]) -> None:
    assert np.array_equal(decoded(open_source(given, size=16)), np.repeat(GREY[..., None], 3, axis=3))


def test_masks_of_zero_and_one_are_black_and_white() -> None:
    mask = GREY > 100
    for given in (mask, mask.astype(np.uint8)):
        assert np.array_equal(decoded(open_source(given, size=16))[..., 0], mask * 255)


def test_transparent_parts_show_the_background() -> None:
    clear = np.zeros((1, 16, 16, 4), np.uint8)
    assert (decoded(open_source(clear, size=16)) == 255).all()


def test_floats_that_overshoot_are_not_taken_for_signed_ones() -> None:
    given = PICTURES / 255.0
    given[0, 0, 0, 0], given[0, 0, 0, 1] = -0.02, 1.02
    found = decoded(open_source(given, size=16))
    assert np.array_equal(found[1:], PICTURES[1:])
    assert found[0, 0, 0].tolist()[:2] == [0, 255]


def test_channels_are_looked_for_at_the_end_first() -> None:
    content = open_source(np.zeros((2, 3, 5, 3), np.uint8), size=16).pictures[0].read()
    assert content.startswith(b"P6\n5 3\n255\n")


def test_one_bad_row_is_refused_alone() -> None:
    floats = np.repeat(PICTURES / 255.0, 2000, axis=0)
    floats[1, 0, 0, 0], floats[3, 0, 0, 0] = np.nan, -0.9
    pictures = open_source(floats, size=16).pictures
    for i in (1, 3):
        with pytest.raises(UnreadablePictureError, match="not between 0 and 1"):
            pictures[i].read()
    assert np.array_equal(decode_picture(pictures[0].read(), 16).transpose(1, 2, 0), SQUARE)


def test_npz_with_labels_and_captions(tmp_path: Path) -> None:
    more = {"labels": np.array([[1], [0], [5]]), "label_names": ["cat", "dog"], "captions": ["a  b", "c", ""]}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", images=PICTURES, **more)
        source = open_source(tmp_path / "a.npz", size=16)
        assert [(p.caption, p.label) for p in source.pictures] == [("a b", "dog"), ("c", "cat"), (None, "5")]
        assert np.array_equal(decoded(source), PICTURES)
    np.savez(tmp_path / "b.npz", whatever=PICTURES)
    assert np.array_equal(decoded(open_source(tmp_path / "b.npz", size=16)), PICTURES)
    given = array_source(PICTURES, captions=["x", "y", "z"], labels=["p", "q", "p"])
    assert [(p.caption, p.label) for p in open_source(given, size=16).pictures] == [("x", "p"), ("y", "q"), ("z", "p")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((2, 8, 8, 5)), "is not that of pictures"),
        (np.zeros((8, 8)), "is not that of pictures"),
        (np.zeros((0, 8, 8, 3)), "is not that of pictures"),
        (np.array(["a"]), "not numbers"),
        (np.full((1, 8, 8), -300.0), "values from -300 to -300: scale them"),
        (np.full((1, 8, 8), np.nan), "scale them"),
        ([1, 2], "is not that of pictures"),
        ([np.zeros((4, 4)), np.zeros((5, 5))], "a list that is no array of pictures .*: give"),
        (torch.zeros(2, 8, 8, requires_grad=True), "a Tensor that is no array of pictures"),
    ],
)
def test_arrays_that_are_no_pictures(given: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_source(given, size=16)


def test_what_is_unknown_is_not_called_none() -> None:
    pictures = array_source(PICTURES, captions=["x", None, ""], labels=["p", None, "q"]).pictures
    assert [(p.caption, p.label) for p in pictures] == [("x", "p"), (None, None), (None, "q")]


def test_what_data_are_called(tmp_path: Path) -> None:
    assert source_name(PICTURES) == open_source(PICTURES, size=16).name == "array of 3 x 16 x 16 x 3, uint8"
    assert source_name(array_source(PICTURES, name="mine")) == "mine"
    assert source_name(tmp_path) == str(tmp_path)


def test_labels_of_another_length() -> None:
    with pytest.raises(UserError, match="2 labels for 3 pictures"):
        array_source(PICTURES, labels=[1, 2])


def test_broken_files_and_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PICTURES)
    whole = (tmp_path / "a.npy").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"\x93NUMPY", b"PK\x03\x04"):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as numpy arrays"):
            open_source(tmp_path / "a.npy", size=16)
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", images=np.array([{"a": 1}], dtype=object))
    for name in ("o.npy", "o.npz"):
        with pytest.raises(UserError, match="it holds Python objects"):
            open_source(tmp_path / name, size=16)
    np.savez(tmp_path / "c.npz", a=PICTURES, b=PICTURES)
    with pytest.raises(UserError, match="no pictures among its arrays a, b"):
        open_source(tmp_path / "c.npz", size=16)


def test_damaged_headers_are_one_line(tmp_path: Path) -> None:
    """numpy's reader of headers raises what Python's own parser raises."""
    np.save(tmp_path / "a.npy", PICTURES)
    whole = (tmp_path / "a.npy").read_bytes()
    for broken in (b"'shape': S3,", b"'shape': ((,", b"'shape': 1e9,", b"'shape': (-3,"):
        (tmp_path / "a.npy").write_bytes(whole.replace(b"'shape': (3,", broken))
        with pytest.raises(UserError, match="cannot be read as numpy arrays"):
            open_source(tmp_path / "a.npy", size=16)
