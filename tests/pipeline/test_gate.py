"""The gate between the stages: what it stops, what it lets through, and how one goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.core.files import read_json, write_json
from calotype.latents import health
from calotype.pipeline import Run, gate, train
from calotype.training.journal import SECONDS_A_STEP
from tests.pipeline.conftest import QUICK, paint

FEW, MANY = 2, int(gate.A_TRIAL / SECONDS_A_STEP) + 1


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return paint(tmp_path / "shapes")


def go(shapes: Path, steps: int, *overrides: str) -> Run:
    return train(shapes, out=shapes.parent / "run", size=32, steps=steps, overrides=[*QUICK, *overrides])


def refused(shapes: Path, *overrides: str) -> str:
    """Train long on a VAE of six steps, and what the refusal says."""
    with pytest.raises(UserError) as stopped:
        go(shapes, MANY, *overrides)
    return str(stopped.value)


def test_a_short_trial_goes_on_with_a_warning_and_a_long_run_does_not(shapes: Path) -> None:
    run = go(shapes, FEW)
    record = json.loads((run.latents / "health.json").read_text())
    assert record["verdict"] == "refuse"
    assert (run.latents / "health.png").stat().st_size > 1000
    assert (run.model / "model.json").exists()
    said = refused(shapes)
    assert "vae.steps" in said
    assert "health.png" in said
    assert "vae.gate=warn" in said
    assert refused(shapes) == said  # the same command is refused again, and nothing is lost
    assert run.facts()["denoiser_steps"] == FEW


def test_the_way_out_that_the_refusal_names_is_open(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "A_TRIAL", 0)
    with pytest.raises(UserError, match=r"gate=warn"):
        go(shapes, FEW)
    run = go(shapes, FEW, "vae.gate=warn")
    assert run.facts()["denoiser_steps"] == FEW
    assert run.recipe.vae.gate == "warn"


def test_parts_that_do_not_belong_together_stop_even_a_trial(shapes: Path) -> None:
    run = go(shapes, FEW)
    statistics = read_json(run.latents / "statistics.json")
    write_json(run.latents / "statistics.json", {**statistics, "std": [2 * value for value in statistics["std"]]})
    with pytest.raises(UserError, match=r"std"):
        go(shapes, FEW + 1)


def test_healthy_latents_are_examined_once(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = go(shapes, FEW)
    record = read_json(run.latents / "health.json")
    write_json(run.latents / "health.json", {**record, "verdict": "pass"})
    monkeypatch.setattr(gate, "examine", lambda *arguments, **options: pytest.fail("examined again"))
    go(shapes, FEW + 1)
    assert record["format"] == health.FORMAT


def test_the_gate_can_be_skipped(shapes: Path) -> None:
    assert not (go(shapes, FEW, "vae.gate=skip").latents / "health.json").exists()


def test_a_vae_that_came_with_another_model_is_not_to_be_trained_longer(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go(shapes, FEW)
    monkeypatch.setattr(gate, "A_TRIAL", 0)
    with pytest.raises(UserError, match=r"trained elsewhere.*another --from") as stopped:
        train(shapes, out=shapes.parent / "next", size=32, steps=FEW, from_model=first.folder, overrides=QUICK)
    assert "vae.steps" not in str(stopped.value)
