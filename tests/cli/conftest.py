"""Fakes in place of training, loading and listing, so that what is tested is the command line."""

import sys
import types
from pathlib import Path

import pytest

import calotype
from calotype.pipeline import shipped
from tests.cli.fakes import Model, Training


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, temporary files included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    fake = Model()
    monkeypatch.setitem(vars(calotype), "load", lambda name, **settings: fake)
    monkeypatch.setattr(shipped, "found", lambda name: shipped.Place("model", Path(name)))
    return fake


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    fake = Training()
    home = types.ModuleType("calotype.inspection.training")
    home.train = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calotype.inspection.training", home)
    return fake


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    monkeypatch.setattr(shipped, "list_models", lambda: found)
    return found
