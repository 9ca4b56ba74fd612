"""Drawing with other weights of a run than its bundle's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import calotype
from calotype.core.errors import UserError
from calotype.pipeline import Run, train
from calotype.pipeline.weights import denoiser_weights
from calotype.training.checkpoint import read_checkpoint
from tests.pipeline.conftest import QUICK, paint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("weights")
    averages = [f"training.post_hoc.{name}" for name in ("every=1", "base=2")]
    settings = [*QUICK, *averages, "training.validate_every=2"]
    return train(paint(folder / "shapes"), out=folder / "run", size=32, steps=12, overrides=settings)


def test_each_kind_is_what_it_says(run: Run) -> None:
    newest = read_checkpoint(run.denoiser / "step-00000012").tensors
    kinds = {kind: denoiser_weights(run.denoiser, kind) for kind in ("averaged", "live", "best", "0.1")}
    name = next(name for name, value in newest["network"].items() if value.ndim == 4)
    assert torch.equal(kinds["averaged"][name], newest["ema"][name])
    assert torch.equal(kinds["live"][name], newest["network"][name])
    distance = (kinds["0.1"][name] - newest["averages"][f"0.1/{name}"]).abs().max()
    assert distance < 2e-3 * newest["network"][name].abs().max()  # snapshots are in half precision
    assert all(kind.keys() == newest["network"].keys() for kind in kinds.values())


def test_a_model_is_loaded_with_any_of_them(run: Run) -> None:
    drawn = [calotype.load(run.folder, weights=kind).sample_tensor(num_steps=2) for kind in ("averaged", "live", 0.08)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], calotype.load(run.folder / "model").sample_tensor(num_steps=2))


def test_what_is_not_there_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown weights 'lives'.*'live'"):
        calotype.load(run.folder, weights="lives")
    with pytest.raises(UserError, match="is not a run's folder: it has averaged weights alone"):
        calotype.load(run.model, weights="live")
    plain = tmp_path / "plain"
    shutil.copytree(run.folder, plain)
    shutil.rmtree(plain / "denoiser" / "averages")
    with pytest.raises(UserError, match="no whole snapshots"):
        calotype.load(plain, weights=0.1)


def test_live_previews_stand_beside_averaged_ones(run: Run) -> None:
    names = {path.name for path in run.samples.glob("denoiser-*.png")}
    assert names == {"denoiser-00000012.png", "denoiser-00000012-live.png"}
