"""examples/first_look.py: runs on real pictures with and without words, learns, and stays short."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.images import SHOWCASE, decode_picture, open_source

SCRIPT = Path(__file__).parents[2] / "examples" / "first_look.py"
CELL, PAD = 64, 2


@pytest.fixture(scope="module")
def first_look() -> Callable[[list[str]], None]:
    """The script's main function."""
    spec = importlib.util.spec_from_file_location("first_look", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve emoji with captions."""
    folder = tmp_path_factory.mktemp("emoji")
    wanted = [picture for picture in open_source("openmoji", size=CELL).pictures if picture.caption in SHOWCASE][:12]
    lines = []
    for i, picture in enumerate(wanted):
        (folder / f"{i:02}.png").write_bytes(picture.read())
        lines.append(json.dumps({"file_name": f"{i:02}.png", "text": picture.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def cell(sheet: Image.Image, row: int, column: int, rows: int) -> np.ndarray:
    """One picture of the sheet, without its caption."""
    pitch = (sheet.height - PAD) // rows
    left, top = PAD + column * (CELL + PAD), PAD + row * pitch
    return np.asarray(sheet.crop((left, top, left + CELL, top + CELL))).transpose(2, 0, 1)


def test_it_stays_under_a_hundred_lines() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 100


def test_captioned_pictures_give_a_sheet_and_falling_losses(
    first_look: Callable[[list[str]], None], emoji: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    first_look([str(emoji), "--vae-steps", "10", "--steps", "20", "--out", str(out)])
    printed = capsys.readouterr().out
    for name, steps in (("ConvVAE", 10), ("UNet", 20)):
        losses = [float(value) for value in re.findall(rf"{name}: step \d+ of {steps}, loss ([\d.]+)", printed)]
        assert len(losses) == 10
        assert sum(losses[-3:]) < 0.99 * sum(losses[:3])
    with Image.open(out) as file:
        sheet = file.convert("RGB")
    assert sheet.width == PAD + 8 * (CELL + PAD)
    pictures = [decode_picture(path.read_bytes(), CELL) for path in sorted(emoji.glob("*.png"))]
    asked = [i * 12 // 32 for i in range(8)]
    for column, i in enumerate(asked):
        assert (cell(sheet, 0, column, rows=8) == pictures[i]).all()  # row 0: the data itself
    assert (cell(sheet, 2, 0, rows=8) != cell(sheet, 2, 7, rows=8)).any()  # row 2 goes into noise
    assert (cell(sheet, 4, 0, rows=8) != cell(sheet, 4, 1, rows=8)).any()  # own noise for every picture


def test_pictures_without_words_are_enough(
    first_look: Callable[[list[str]], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(draw.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    first_look([str(tmp_path), "--vae-steps", "1", "--steps", "2", "--out", str(tmp_path / "sheet.png")])
    assert "UNet: step 2 of 2" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == PAD + 8 * (CELL + PAD)
