"""The scripts of the shipped models call what there is, in order, and can be called again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from calotype.cli.main import app
from calotype.recipes import Recipe

RUNS = Path(__file__).parents[2] / "runs"
SCRIPTS = sorted(path.name for path in RUNS.glob("*.sh"))
STUB = """#!/usr/bin/env python3
import json, pathlib, sys
given = sys.argv[1:]
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(given) + "\\n")
if "train" in given:
    model = pathlib.Path(given[given.index("--out") + 1]) / "model"
    model.mkdir(parents=True, exist_ok=True)
    if not (model / "manifest.json").exists():  # a finished run is left as it is
        (model / "manifest.json").touch()
    sys.exit("lost power" if pathlib.Path("lose-power").exists() else 0)
if "evaluate" in given and "--sweep" not in given:
    run = pathlib.Path(given[given.index("evaluate") + 1])
    out = given[given.index("--out") + 1] if "--out" in given else run / "evaluation.json"
    pathlib.Path(out).write_text("{}")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder like the repository, with a python that notes what it is called with."""
    shutil.copytree(RUNS, tmp_path / "runs", ignore=lambda _, names: [name for name in names if "." not in name])
    (tmp_path / "python").write_text(STUB)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "photographs.tar").touch()
    return tmp_path


def called(checkout: Path, script: str, *given: str) -> tuple[int, list[list[str]]]:
    """Its exit status, and what it called."""
    (checkout / "calls.jsonl").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHON": str(checkout / "python")}
    done = subprocess.run(
        ["bash", str(checkout / "runs" / script), *given], env=environment, cwd=checkout, capture_output=True, text=True
    )
    calls = checkout / "calls.jsonl"
    return done.returncode, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_trains_scores_and_packs_and_goes_on_where_it_was(checkout: Path, script: str) -> None:
    data = [] if script.startswith("openmoji") else ["photographs.tar"]
    (checkout / "lose-power").touch()
    status, first = called(checkout, script, *data)
    assert status != 0
    assert "train" in first[-1]  # what fails stops it
    (checkout / "lose-power").unlink()
    status, calls = called(checkout, script, *data)
    assert status == 0
    name = script.removesuffix(".sh")
    assert calls[-1][:3] == ["runs/pack.py", f"runs/{name}", name]
    assert calls[: len(first)] == first
    status, again = called(checkout, script, *data)
    assert status == 0
    assert [call for call in again if "evaluate" in call] == []  # what is measured stays measured
    assert again[-1] == calls[-1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_it_calls_is_there(checkout: Path, script: str) -> None:
    data = [] if script.startswith("openmoji") else ["photographs.tar"]
    _, calls = called(checkout, script, *data)
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    for call in calls:
        if call[0] != "-m":
            assert (RUNS.parent / call[0]).is_file()
            continue
        assert call[1] == "calotype"
        given = verbs[call[2]].make_context(call[2], list(call[3:])).params  # options are known, and as they must be
        if call[2] == "train":
            assert given["seed"] == 0
            assert given["steps"]
            Recipe.parse({"name": "calotype", "size": given["size"]}).with_overrides(given["overrides"])


def test_without_pictures_it_says_which(checkout: Path) -> None:
    assert called(checkout, "landscapes-128.sh") == (2, [])
    assert called(checkout, "landscapes-128.sh", "nowhere.tar") == (2, [])
