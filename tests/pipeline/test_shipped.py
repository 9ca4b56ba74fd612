"""What can be named: shipped models and runs, found without torch and listed without reading weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.core.files import read_json, write_folder, write_json
from calotype.pipeline import Run, list_models, load, shipped
from calotype.pipeline.bundle import rewrite_bundle
from calotype.pipeline.shipped import locate


@pytest.fixture
def package(tmp_path: Path, class_run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships two models; the working folder is an empty one."""
    models = tmp_path / "calotype" / "models"
    shutil.copytree(class_run.model, models / "shapes-32")
    shutil.copytree(class_run.model, models / "shapes-64")
    monkeypatch.setattr(shipped, "shipped_folder", lambda: models)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return models


def test_a_shipped_name_is_loaded_from_anywhere(package: Path, class_run: Run) -> None:
    assert load("shapes-32").facts == load(class_run.folder).facts
    place = shipped.found("shapes-32")
    assert (place.kind, place.folder, place.is_shipped) == ("model", package / "shapes-32", True)


def test_a_folder_of_the_users_with_a_model_comes_first_and_any_other_is_passed_over(
    package: Path, class_run: Run
) -> None:
    own = Path("shapes-32")
    own.mkdir()
    assert shipped.found("shapes-32").is_shipped
    shutil.rmtree(own)
    shutil.copytree(class_run.model, own)
    rewrite_bundle(own, facts={"name": "mine"})
    assert load("shapes-32").facts["name"] == "mine"
    assert not shipped.found("shapes-32").is_shipped
    assert list_models()[0]["path"] == str(package / "shapes-32")


def test_a_package_folder_by_its_path_is_shipped_too(package: Path, class_run: Run) -> None:
    Path("linked").symlink_to(package / "shapes-32")
    places = [locate(name) for name in (package / "shapes-32", "linked", class_run.folder, class_run.model)]
    assert [place and place.is_shipped for place in places] == [True, True, False, False]
    assert [place and place.kind for place in places] == ["model", "model", "run", "model"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shaeps-32", "no model 'shaeps-32': did you mean 'shapes-32'?"),
        ("../calotype", "no model '../calotype'"),
        ("", "no model ''"),
    ],
)
def test_what_draws_nothing_is_one_line(package: Path, name: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        load(name)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_list_says_what_each_takes_weighs_and_scores(package: Path, class_run: Run) -> None:
    shutil.copytree(class_run.folder, "runs/shapes")
    estimate = {"value": 0.5, "low": 0.4, "high": 0.625}
    classes = {"captions": None, "classes": {"right": estimate}}
    described = read_json(class_run.model / "model.json")
    described["facts"]["scores"] = {"fidelity": classes, "distances": {}}
    write_json(Path("runs/shapes/model/model.json"), described)
    Path("runs/shapes/model/manifest.json").unlink()
    rewrite_bundle(package / "shapes-64", facts={"data": {"licence": "various"}})
    listed = list_models()
    assert [entry["name"] for entry in listed] == ["shapes-32", "shapes-64", "runs/shapes"]
    assert [entry["takes"] for entry in listed] == ["classes"] * 3
    assert [entry["pixels"] for entry in listed] == [32] * 3
    assert listed[0]["bytes"] == sum(path.stat().st_size for path in (package / "shapes-32").iterdir())
    assert [entry["score"] for entry in listed] == [None, None, "right class 50 [40, 62] %"]
    assert listed[1]["licence"] == "various"
    assert not any("problem" in entry for entry in listed)


def test_the_main_score_is_what_was_asked_for_before_distances() -> None:
    estimate = {"value": 0.0123, "low": 0.01, "high": 0.02}
    samples = {"samples": {"kernel": estimate}}
    asked = {"captions": {"top5": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    only = shipped._main_score({"scores": {"fidelity": {"captions": None}, "distances": samples}})
    assert only == "kernel distance 12.3 [10.0, 20.0] ×10⁻³"
    assert shipped._main_score({"scores": {"fidelity": asked, "distances": samples}}) == "as asked 50 [40, 60] %"
    both = {**asked, "classes": {"right": {"value": 0.8, "low": 0.7, "high": 0.9}}}
    assert shipped._main_score({"scores": {"fidelity": both}}) == "right class 80 [70, 90] %"
    assert shipped._main_score({}) is None


def _cut(folder: Path) -> None:
    weights = folder / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _spoil(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_cut, "denoiser.safetensors has"),
        (lambda folder: (folder / "vae.safetensors").unlink(), "vae.safetensors is missing"),
        (lambda folder: _spoil(folder, "{"), "not valid JSON"),
        (lambda folder: _spoil(folder, "[1]"), "does not describe a model"),
        (lambda folder: _spoil(folder, '{"facts": []}'), "does not describe a model"),
        (
            lambda folder: _spoil(folder, '{"recipe": {}, "facts": {"scores": {"distances": {"samples": 3}}}}'),
            "does not describe",
        ),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "lists no files"),
    ],
)
def test_what_cannot_be_read_is_a_row_that_says_so(package: Path, spoil, told: str) -> None:
    spoil(package / "shapes-32")
    bad, good = list_models()
    assert (bad["name"], good["name"]) == ("shapes-32", "shapes-64")
    assert told in bad["problem"]
    assert "problem" not in good


def test_listing_and_finding_load_neither_torch_nor_weights(package: Path) -> None:
    heavy = ["torch", "numpy", "PIL", "pydantic", "yaml", "safetensors", "onnxruntime"]
    code = (
        "import sys\nfrom pathlib import Path\nfrom calotype.pipeline import shipped\n"
        f"shipped.shipped_folder = lambda: Path({str(package)!r})\n"
        "assert len(shipped.list_models()) == 2 and shipped.found('shapes-32').text_encoder is None\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_text_encoder_of_a_place_is_that_of_its_captions(package: Path, tmp_path: Path) -> None:
    described = read_json(package / "shapes-32" / "model.json")
    described["facts"]["captioned"] = True
    write_folder(tmp_path / "m", lambda aside: write_json(aside / "model.json", described))
    assert shipped.found(tmp_path / "m").text_encoder == "minilm"
    assert shipped.found("shapes-32").text_encoder is None
    (tmp_path / "m" / "model.json").write_text(json.dumps([1]))
    assert shipped.found(tmp_path / "m").text_encoder is None
