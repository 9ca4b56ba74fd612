"""Grids put every picture where it belongs; files carry their settings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.errors import UserError
from calotype.images import film_strip, plot_images, read_settings, save_gif, save_png, to_float, to_pil
from calotype.images.grid import _fit, _font
from tests.images.making import BLUE, RED, noise_png, quadrants


def pixels(count: int, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()


def test_grid_places_every_picture() -> None:
    rows = pixels(5)
    grid = np.asarray(plot_images(rows, columns=3, pad=2))
    assert grid.shape == (2 + 2 * 10, 2 + 3 * 10, 3)
    for number in range(5):
        top, left = 2 + number // 3 * 10, 2 + number % 3 * 10
        assert np.array_equal(grid[top : top + 8, left : left + 8], rows[number].permute(1, 2, 0).numpy())
    assert (grid[12:20, 22:30] == 255).all()  # the empty place


def test_the_kinds_of_input_agree() -> None:
    rows = pixels(4, 6, 10)
    expected = np.asarray(plot_images(rows))
    assert np.array_equal(np.asarray(plot_images(to_float(rows))), expected)
    assert np.array_equal(np.asarray(plot_images(to_pil(rows))), expected)
    assert np.array_equal(np.asarray(plot_images(to_float(rows).requires_grad_())), expected)


def test_scale_strip_and_default_columns() -> None:
    rows = pixels(9)
    assert plot_images(rows, pad=0).size == (24, 24)
    assert film_strip(rows, pad=1).size == (1 + 9 * 9, 10)
    doubled = np.asarray(plot_images(rows, pad=0, scale=2))
    assert np.array_equal(doubled[::2, ::2], np.asarray(plot_images(rows, pad=0)))


def test_captions_stay_under_their_picture() -> None:
    rows = torch.full((3, 3, 64, 64), 128, dtype=torch.uint8)
    long = "a photograph of an uncommonly-long-word-without-end and more of it still"
    grid = np.asarray(plot_images(rows, columns=3, captions=["cat", long, None], pad=4)).astype(int)
    below = grid[4 + 64 :]
    ink = np.flatnonzero((below < 200).any(axis=(0, 2)))
    assert ink.size
    assert ((ink >= 4) & (ink < 4 + 64) | (ink >= 72) & (ink < 72 + 64)).all()  # none in gaps, none under the third
    assert plot_images(rows, captions=[None] * 3).size == plot_images(rows).size


def test_long_captions_end_in_an_ellipsis() -> None:
    font = _font(10)
    for width in (20, 64, 120):
        lines = _fit("the quick brown fox jumps over the lazy dog and runs away into the wood", font, width)
        assert len(lines) == 2
        assert all(font.getlength(line) <= width for line in lines)
        assert lines[-1].endswith("…")
    assert _fit("red apple", font, 200) == ["red apple"]
    assert _fit("", font, 64) == []


def test_a_caption_as_long_as_a_book_is_not_measured_to_its_end() -> None:
    class Counting:
        calls = 0

        def getlength(self, text: str) -> float:
            self.calls += 1
            return _font(9).getlength(text)

    font = Counting()
    lines = _fit(" " * 500 + "a long tale " * 20_000, font, 64)  # type: ignore[arg-type]
    assert lines == _fit("a long tale " * 20, _font(9), 64)
    assert lines[-1].endswith("…")
    assert font.calls < 200


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        plot_images([])
    with pytest.raises(ValueError, match="2 captions for 3"):
        plot_images(pixels(3), captions=["a", "b"])
    with pytest.raises(ValueError, match="not \\(3, 8, 8\\)"):
        plot_images(pixels(1)[0])
    with pytest.raises(ValueError, match="no frames"):
        save_gif([], Path("x.gif"))


def test_png_carries_its_settings(tmp_path: Path) -> None:
    settings = {"prompt": "ein Käfer 日本 \n zwei", "seed": 7, "guidance_scale": 3.0, "negative": None}
    image = quadrants()
    save_png(image, tmp_path / "new" / "a.png", settings)
    assert read_settings(tmp_path / "new" / "a.png") == settings
    with Image.open(tmp_path / "new" / "a.png") as saved:
        assert (saved.info["prompt"], saved.info["seed"]) == (settings["prompt"], "7")
        assert np.array_equal(np.asarray(saved), np.asarray(image))
    image.info["calotype"] = {"seed": 8}
    save_png(image, tmp_path / "b.png")
    assert read_settings(tmp_path / "b.png") == {"seed": 8}
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["b.png", "a.png"]


def test_settings_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(noise_png(0))
    assert read_settings(tmp_path / "plain.png") == {}
    (tmp_path / "broken.png").write_bytes(noise_png(0)[:50])
    for name, says in (("broken.png", "not a readable PNG"), ("gone.png", "no such file")):
        with pytest.raises(UserError, match=says):
            read_settings(tmp_path / name)


def test_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE, RED)]
    save_gif(frames, tmp_path / "a.gif", milliseconds=50)
    with Image.open(tmp_path / "a.gif") as saved:
        assert (saved.n_frames, saved.info["loop"], saved.info["duration"]) == (3, 0, 50)
        saved.seek(1)
        assert saved.convert("RGB").getpixel((5, 5)) == BLUE
        saved.seek(2)
        assert saved.info["duration"] == 1000
