"""`calotype verify-resume` from the command line: a real proof in small, and what it says when there is none."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from calotype.cli.main import run
from calotype.core.errors import UserError
from calotype.inspection import resume

TINY = ["vae.training.batch_size=4", "training.batch_size=4", "vae.network.channels=[8,16]", "network.channels=[16,32]"]
FOUND = {
    "identical": False,
    "device": "cpu",
    "threads": 2,
    "reference_seconds": 1.5,
    "killed": [{"stage": "vae", "at_step": 2, "of": 3}],
    "compared": ["vae/step-00000003/network.safetensors"],
    "differing": ["vae/step-00000003/network.safetensors"],
    "first_difference": {"stage": "vae", "step": 3, "values": ["loss"]},
    "cause": "two runs left alone differ as well",
    "remedy": "fix the threads",
}


def test_it_proves_resume_here(command) -> None:
    done = command(
        "verify-resume", "--steps", "6", "--json", *(w for setting in TINY for w in ("--set", setting)), timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert found["differing"] == []
    assert [(kill["stage"], kill["of"]) for kill in found["killed"]] == [("vae", 6), ("denoiser", 6)]
    assert all(3 <= kill["at_step"] <= 6 for kill in found["killed"])
    assert {name.split("/")[0] for name in found["compared"]} >= {
        "vae",
        "denoiser",
        "latents",
        "model",
        "metrics.jsonl",
    }


def test_a_difference_is_told_and_both_runs_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prove(data: str | None, home: Path, **settings: object) -> dict[str, object]:
        (home / "killed").mkdir()
        return dict(FOUND)

    monkeypatch.setattr(resume, "verify_resume", prove)
    assert run(["verify-resume", "photos"]) == 1
    said = capsys.readouterr().out
    assert "differs    vae/step-00000003/network.safetensors" in said
    assert "first      vae, step 3: loss" in said
    assert "NOT exact: two runs left alone differ as well" in said
    assert "remedy     fix the threads" in said
    kept = Path(said.splitlines()[-1].removeprefix("kept").strip())
    assert (kept / "killed").is_dir()


def test_what_train_refuses_is_refused_in_its_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["verify-resume", "no/such/folder"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "no/such/folder" in said[-1]
    assert said[-1].startswith("error: ")
    assert not list(tmp_path.glob("calotype-verify-*"))


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_stopped_on_the_way_it_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signalled: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore Ctrl-C

    def stopped(data: str | None, home: Path, **settings: object) -> None:
        (home / "killed").mkdir()
        os.kill(os.getpid(), signalled)
        signal.pause()

    monkeypatch.setattr(resume, "verify_resume", stopped)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(["verify-resume", "photos"]) == 1
    assert os.listdir(tmp_path) == []


def test_a_killed_run_that_fails_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(data: str | None, home: Path, **settings: object) -> None:
        (home / "killed").mkdir()
        raise UserError("it ended with status 1")

    monkeypatch.setattr(resume, "verify_resume", failing)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(["verify-resume", "photos"]) == 2
    (home,) = tmp_path.iterdir()
    assert f"kept in {home}" in capsys.readouterr().err
