"""The models that the package carries: whole, small, described, as good as they were when scored, and drawing it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.core.files import verify_folder
from calotype.core.tensors import is_half
from calotype.images import SHOWCASE
from calotype.images.grid import plot_images
from calotype.pipeline import Pipeline, list_models, load
from calotype.pipeline.shipped import shipped_folder

NAMES = ["landscapes-128", "openmoji-64"]


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Pipeline:
    return load(request.param, "cpu")


def folder_of(model: Pipeline) -> Path:
    return shipped_folder() / str(model.facts["shipped"])


def test_they_are_whole_and_small_and_listed_with_score_and_licence() -> None:
    listed = [entry for entry in list_models() if entry["kind"] == "shipped"]
    assert [entry["name"] for entry in listed] == NAMES
    assert sum(entry["bytes"] for entry in listed) <= 40_000_000
    for entry in listed:
        assert not entry.keys() & {"problem"}
        assert all(entry[key] for key in ("score", "licence", "attribution", "data"))
        verify_folder(Path(entry["path"]), sealed=True)
        assert all(is_half(Path(entry["path"]) / f"{part}.safetensors") for part in ("denoiser", "vae"))


def test_the_card_says_what_whoever_draws_with_it_must_know(model: Pipeline) -> None:
    card = (folder_of(model) / "README.md").read_text(encoding="utf-8")
    for heading in ("Scores", "Data", "What the licence means for your pictures", "Training", "What it cannot do"):
        assert f"\n## {heading}\n" in card, heading
    for words in ("(samples.png)", "seeds 0 to 15", f"runs/{model.facts['shipped']}.sh", "float16", "Memory: "):
        assert words in card, words
    assert str(model.facts["data"]["licence"]).split()[0] in card


def test_what_they_scored_is_what_is_asked_of_them() -> None:
    emoji = load("openmoji-64", "cpu").facts["scores"]["fidelity"]["captions"]
    assert emoji["gallery"] == 512
    assert (emoji["prompts"], emoji["images_per_prompt"]) == (192, 4)
    assert emoji["top5"]["value"] >= 0.9 * emoji["ceiling5"]["value"]
    scores = load("landscapes-128", "cpu").facts["scores"]
    classes = scores["fidelity"]["classes"]
    # What the autoencoder blurs is seen as another class.
    assert classes["right"]["value"] >= max(0.85, classes["ceiling"]["value"])
    assert scores["memorization"]["verdict"] == "new"


def test_it_draws_the_first_row_of_its_sheet(model: Pipeline) -> None:
    """Those very weights and settings, on another machine too: but for what float32 rounds elsewhere."""
    asked = {"labels": model.classes[0]} if model.classes else {"prompts": "red heart"}
    columns = 16 if model.size == 64 else 8
    row = np.asarray(plot_images(model.sample(**asked, num_images=columns, seed=0), columns=columns), dtype=float)
    with Image.open(folder_of(model) / "samples.png") as sheet:
        shown = np.asarray(sheet.convert("RGB"), dtype=float)[: row.shape[0] - 2]
    assert shown.shape == row[:-2].shape
    assert np.abs(shown - row[:-2]).mean() < 1


def test_a_red_heart_is_red_and_the_frog_is_green() -> None:
    drawn = load("openmoji-64", "cpu").sample(["a red heart", "the frog", *SHOWCASE[:6]], seed=0)
    means = [np.asarray(picture, dtype=float)[16:48, 16:48].mean(axis=(0, 1)) for picture in drawn]
    assert means[0].argmax() == 0
    assert means[0][0] - means[0][1:].max() > 60
    assert means[1].argmax() == 1
    corners = np.stack([np.asarray(picture)[:3, :3] for picture in drawn])
    assert corners.min() > 230  # on white paper


def test_the_first_command_to_try_draws_from_anywhere(command, tmp_path: Path) -> None:
    done = command("sample", "openmoji-64", "a red heart")
    assert done.returncode == 0, done.stderr
    (path,) = done.stdout.split()
    with Image.open(tmp_path / path) as picture:
        assert (picture.size, picture.text["prompt"]) == ((64, 64), "a red heart")
