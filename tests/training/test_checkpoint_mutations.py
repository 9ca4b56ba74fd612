"""The benchmark's damages to checkpoints, a few of each: none loads silently, nothing whole is passed over."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from calotype.training import checkpoint

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mutated_checkpoints.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    spec = importlib.util.spec_from_file_location("mutated_checkpoints", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_checkpoints(tmp_path: Path, script: ModuleType) -> None:
    found = script.trial(tmp_path, 300, 0)
    assert (found["silent"], found["lost"], found["crashes"]) == ([], [], [])
    assert sum(found["outcomes"].values()) == 300
    assert found["outcomes"]["an older one"] > 100
    assert found["outcomes"]["refused"] > 5
    assert all(found["by_kind"][kind] for kind in script.MUTATIONS)


def test_a_reader_that_trusts_is_found_out(tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "verify_folder", lambda folder, **_: None)
    found = script.trial(tmp_path, 60, 0)
    assert found["silent"]
