"""A finished run becomes a model that the package can carry: small, described, and drawing as it did."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.files import verify_folder, write_json
from calotype.core.tensors import halved, load_tensors
from calotype.images.pixels import to_uint8
from calotype.inspection.scores.subject import denoiser_digest
from calotype.pipeline import Run, load, train
from calotype.pipeline.bundle import rewrite_bundle
from tests.pipeline.conftest import QUICK, paint
from tests.pipeline.test_card_scores import scores

NOTES = """---
source: drawings of nobody
licence: CC BY 4.0
attribution: A. Painter
machine: an abacus
---
## What the licence means

Name the painter.

## What it cannot do

- Squares.
"""


@pytest.fixture
def pack(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("pack")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("packed")
    return train(paint(home / "shapes"), out=home / "run", size=32, steps=4, overrides=QUICK)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy that is scored, beside its notes."""
    run = Run(Path(shutil.copytree(trained.folder, tmp_path / "run")))
    rewrite_bundle(run.model, facts={"scores": record_of(run)})
    (tmp_path / "notes.md").write_text(NOTES)
    return run


def record_of(run: Run, **changes: Any) -> dict[str, Any]:
    own = load(run.model, "cpu").recipe.sampling.model_dump(mode="json")
    made = {**scores()["made"], "sampling": own}
    return {**scores(made=made), "model": denoiser_digest(run.model), "data": "/home/me/shapes", **changes}


def called(pack: ModuleType, run: Run, *more: str) -> int:
    home = run.folder.parent
    given = [str(run.folder), "discs-32", "--out", str(home / "models"), "--notes", str(home / "notes.md"), *more]
    return int(pack.main(given))


def test_the_model_is_half_as_large_described_and_draws_as_it_did(
    pack: ModuleType, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.model.iterdir()}
    assert called(pack, run) == 0
    assert {path.name: path.read_bytes() for path in run.model.iterdir()} == before
    folder = run.folder.parent / "models" / "discs-32"
    verify_folder(folder, sealed=True)
    for name in ("denoiser.safetensors", "vae.safetensors"):
        full = load_tensors(run.model / name)
        assert all(torch.equal(tensor, full[key].half()) for key, tensor in load_tensors(folder / name).items())
    model, full = load(folder, "cpu"), load(run.model, "cpu")
    ask: dict[str, Any] = {"labels": ["disc"], "num_images": 16, "seed": 0}
    drawn = model.sample_tensor(**ask)
    assert (drawn - full.sample_tensor(**ask)).abs().mean() < 2 / 255

    card = (folder / "README.md").read_text()
    for said in (
        "# discs-32\n",
        "calotype sample discs-32 --label disc -n 4",
        'calotype.load("discs-32")',
        "`calotype export discs-32 --to onnx --out DIR`",
        "a row for each class, from seeds 0 to 15.",
        "- source: drawings of nobody\n- 16 pictures, ",
        "- licence: CC BY 4.0\n- attribution: A. Painter",
        "## What the licence means\n\nName the painter.\n\n## Training",
        "- machine: an abacus",
        "6 steps (24 pictures seen",
        "4 steps (16 pictures seen",
        "`runs/discs-32.sh`",
        "float16 here, float32 in training; 2 pictures of both differ by 0",
        "## What it cannot do\n\n- Squares.\n\nIt has seen only the 16 pictures above",
    ):
        assert said in card, said
    assert "/home/me" not in card + (folder / "model.json").read_text()
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("## Scores\n")
    assert printed in card
    assert "| kernel distance" in printed
    assert model.facts["scores"]["distances"] == record_of(run)["distances"]

    sheet = np.asarray(Image.open(folder / "samples.png"))
    assert sheet.shape[1] == 2 + 16 * (32 + 2)
    for seed in (0, 7, 15):  # nothing chosen, nothing left out, and of these very weights
        left = 2 + seed * (32 + 2)
        assert (sheet[2:34, left : left + 32] == to_uint8(drawn)[seed].permute(1, 2, 0).numpy()).all()


def test_scores_of_another_evaluation_of_this_model_can_be_told(pack: ModuleType, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    write_json(file, record_of(run, model=None, distances={"samples": None, "ceiling": None, "floor": None}))
    assert called(pack, run, "--scores", str(file)) == 0
    assert load(tmp_path / "models" / "discs-32", "cpu").facts["scores"]["distances"]["samples"] is None
    os.utime(file, (0, 0))  # of a model that was there before
    assert called(pack, run, "--scores", str(file)) == 2


@pytest.mark.parametrize("spoilt", ["none", "digest", "settings"])
def test_scores_that_are_not_of_this_model_are_refused(
    pack: ModuleType, run: Run, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_of(run)
    if spoilt == "digest":
        record["model"] = "0" * 64
    if spoilt == "settings":
        record["made"]["sampling"]["guidance_scale"] = 4.5
    rewrite_bundle(run.model, facts={"scores": None if spoilt == "none" else record})
    assert called(pack, run) == 2
    told = capsys.readouterr().err
    assert ("was not evaluated" if spoilt == "none" else "other weights or settings") in told
    assert "--prompts 192 -n 4" in told
    assert not (run.folder.parent / "models").exists()


def test_float16_that_one_would_see_is_refused(
    pack: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def coarse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: (4 * tensor).round() / 4 for name, tensor in halved(tensors).items()}

    monkeypatch.setattr(pack, "halved", coarse)
    assert called(pack, run) == 2
    assert "float16 changes its pictures by" in capsys.readouterr().err


def test_what_the_package_carries_stays_small(
    pack: ModuleType, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.size_of(pack.MODELS) <= pack.MOST_BYTES == 40_000_000
    (tmp_path / "models" / "large").mkdir(parents=True)
    with open(tmp_path / "models" / "large" / "vae.safetensors", "wb") as file:
        file.truncate(40_000_000)
    assert called(pack, run) == 2
    assert "more than 40 MB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no head\n", "has no head of YAML"),
        ("---\n[\n---\n", "has no head of YAML"),
        ("---\nsource: us\n---\n", "licence"),
        (NOTES.replace("licence:", "license:"), "license"),
    ],
)
def test_notes_that_lack_something_are_refused(
    pack: ModuleType, run: Run, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.folder.parent / "notes.md").write_text(text)
    assert called(pack, run) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.parametrize("name", ["openmoji-64", "landscapes-128"])
def test_every_model_has_its_notes_and_its_script(pack: ModuleType, name: str) -> None:
    notes = pack.read_notes(pack.HERE / f"{name}.md")
    assert "What it cannot do" in notes.sections
    assert (pack.HERE / f"{name}.sh").is_file()
