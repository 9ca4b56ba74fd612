"""The size a set asks for; a file that cannot be read does not decide it and stops nothing."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from calotype.images.sizing import natural_size
from calotype.images.source import Source


@pytest.mark.parametrize(("sides", "size"), [([300, 128, 500], 128), ([90, 100, 400], 64), ([127], 64)])
def test_the_median_of_the_shorter_sides_decides(tmp_path: Path, sides: list[int], size: int) -> None:
    for i, side in enumerate(sides):
        Image.new("RGB", (side, side + 50)).save(tmp_path / f"{i}.png")
    assert natural_size(tmp_path) == size


def test_no_pictures_say_nothing() -> None:
    assert natural_size(Source("none", [])) == 64


def test_emoji_are_drawn_small() -> None:
    assert natural_size("openmoji") == 64


def test_a_member_that_unpacks_without_end_is_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(300 << 20))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    assert natural_size(tmp_path / "bomb.zip") == 64
    assert natural_size(tmp_path / "broken") == 64
