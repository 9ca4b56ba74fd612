"""`calotype export` and `calotype import`: what they hand on, print and refuse."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import calotype
from calotype.cli.main import run
from calotype.core.errors import UserError
from calotype.pipeline import export as room

FACTS = {
    "format": "onnx",
    "files": {"denoiser.onnx": 7, "README.md": 3},
    "parity": {"picture_mean_of_255": 0.0123, "picture_max_of_255": 1.0},
}


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was loaded and exported, in order."""
    seen: list[Any] = []
    monkeypatch.setitem(vars(calotype), "load", lambda name, **settings: seen.append((name, settings)) or "the model")
    monkeypatch.setattr(room, "export", lambda model, to, out: seen.append((model, to, out)) or FACTS)
    return seen


def test_export_hands_on_every_option(exports: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "runs/x", "--to", "onnx", "--out", "new", "--text-encoder", "clip"]) == 0
    assert exports == [
        ("runs/x", {"device": "cpu", "text_encoder": "clip"}),
        ("the model", "onnx", Path("new")),
    ]
    shown = capsys.readouterr()
    assert shown.out.split() == ["new/denoiser.onnx", "new/README.md"]
    assert "exporting runs/x to onnx" in shown.err
    assert "differs from calotype's by 0.012 of 255 on average, 1 at most" in shown.err
    assert "new/README.md" in shown.err


def test_export_as_json(exports: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "runs/x", "--to", "onnx", "--out", "new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "runs/x", **FACTS}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--to onx --out new", "error: unknown export format 'onx': did you mean 'onnx'?"),
        ("--to onnx --out full", "error: full is there and is not empty: give a new folder"),
        ("--to onnx --out full/file", "error: --out full/file is a file: name a folder"),
        ("--to onnx --out full/file/deeper", "error: --out full/file is a file: name a folder"),
        ("--to onnx", "error: Missing option '--out'"),
    ],
)
def test_export_refuses_before_it_loads(
    exports: list[Any], capsys: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    assert run(["export", "runs/x", *words.split()]) == 2
    assert line in capsys.readouterr().err
    assert exports == []


def test_import_makes_a_bundle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    model = types.SimpleNamespace(size=64, recipe=types.SimpleNamespace(sampling=types.SimpleNamespace(sampler="ddim")))
    home = types.ModuleType("calotype.pipeline.importing")
    home.import_diffusers = lambda folder, out: seen.append((folder, out)) or model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calotype.pipeline.importing", home)
    assert run(["import", "theirs", "--out", "mine"]) == 0
    assert seen == [(Path("theirs"), Path("mine"))]
    shown = capsys.readouterr()
    assert shown.out == "mine\n"
    assert "calotype sample mine -n 4" in shown.err
    assert run(["import", "theirs", "--out", "mine", "--json"]) == 0
    told = {"folder": "theirs", "model": "mine", "size": 64, "sampler": "ddim"}
    assert json.loads(capsys.readouterr().out) == told

    def refuse(folder: Path, out: Path) -> None:
        raise UserError("theirs has no unet/", "give a folder that diffusers saved")

    home.import_diffusers = refuse  # type: ignore[attr-defined]
    assert run(["import", "theirs", "--out", "mine"]) == 2
    assert "error: theirs has no unet/: give a folder that diffusers saved\n" in capsys.readouterr().err
