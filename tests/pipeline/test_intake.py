"""What a run takes in: its pictures are fixed, and it says when the data has changed since."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import UserError
from calotype.images import Source, open_source
from calotype.pipeline import Run, train
from calotype.pipeline.intake import mirrored, take_in
from calotype.recipes import get_recipe
from tests.images.making import Heard, noise_png
from tests.pipeline.conftest import QUICK, paint


class Listening(Heard):
    """A reporter that remembers every word."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def say(self, message: str) -> None:
        self.words.append(message)


@pytest.fixture
def grown(class_run: Run, tmp_path: Path) -> tuple[Run, Path]:
    """A finished run, and its data with two pictures more and one less."""
    data = Path(shutil.copytree(class_run.folder.parent / "shapes", tmp_path / "shapes"))
    for seed in range(2):
        (data / "disc" / f"new{seed}.png").write_bytes(noise_png(seed))
    (data / "stripe" / "0.png").unlink()
    return class_run, data


def test_a_run_keeps_its_pictures_and_says_what_was_added_and_removed(grown: tuple[Run, Path]) -> None:
    run, data = grown
    heard = Listening()
    pictures = take_in(run, run.recipe, data, heard)
    assert len(pictures) == 16
    assert heard.words[0].startswith("2 files added to the data and 1 file removed from the data since this run began")
    assert f"--size 32 --from {run.folder}" in heard.words[0]


def closed_or_opened(data: Path, *, size: int) -> Source:
    if data.name == "closed":
        raise PermissionError(13, "Permission denied", str(data))
    return open_source(data, size=size)


def test_a_run_whose_data_is_unchanged_or_gone_says_nothing_of_it(
    class_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.pipeline.intake.open_source", closed_or_opened)
    for data in (class_run.folder.parent / "shapes", tmp_path / "gone", "some/dataset", tmp_path / "closed"):
        heard = Listening()
        take_in(class_run, class_run.recipe, data, heard)
        assert heard.words == ["16 pictures of 32 px, 1 of them held out"]


def test_a_name_that_utf_8_cannot_hold_is_known_again(tmp_path: Path) -> None:
    shapes = paint(tmp_path / "shapes", each=6)
    source = open_source(shapes, size=32)
    odd = replace(source, pictures=[replace(picture, name=f"\udcff{picture.name}") for picture in source.pictures])
    run = Run(tmp_path / "run")
    recipe = get_recipe("calotype", 32)
    take_in(run, recipe, odd, Heard())
    heard = Listening()
    take_in(run, recipe, odd, heard)
    assert "since this run began" not in " ".join(heard.words)


def test_mirroring_is_decided_by_the_data_where_the_recipe_leaves_it_open(class_run: Run) -> None:
    pictures = take_in(class_run, class_run.recipe, class_run.folder.parent / "shapes", Heard())
    recipe = class_run.recipe
    assert recipe.loss.flip is None
    assert mirrored(recipe, pictures, Heard())
    assert not mirrored(recipe.with_overrides(["loss.flip=false"]), pictures, Heard())
    pictures.captions = ["an arrow to the left"] * len(pictures)
    heard = Listening()
    assert not mirrored(recipe, pictures, heard)
    assert "tell left from right" in heard.words[0]
    assert mirrored(recipe.with_overrides(["loss.flip=true"]), pictures, Heard())


def test_an_array_and_a_source_are_trained_on_from_python(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    run = train(pixels, out=tmp_path / "array", steps=2, size=32, overrides=QUICK)
    assert "12" in run.read_config()["data"]
    source = open_source(paint(tmp_path / "shapes", each=6), size=32)
    assert isinstance(source, Source)
    assert train(source, out=tmp_path / "source", steps=2, size=32, overrides=QUICK).facts()["data"]["pictures"] == 12
    with pytest.raises(UserError, match="need a folder for their run"):
        train(pixels, steps=2)
