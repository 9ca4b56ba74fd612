"""A small real run, a cheap way to look at pictures, and ways of drawing whose merits are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from calotype.core.progress import Reporter
from calotype.evaluation.paired import Drawn
from calotype.inspection.lab import trials
from calotype.inspection.lab.bench import Bench, Task
from calotype.inspection.lab.setting import Setting
from calotype.pipeline import Pipeline, Run, train
from tests.pipeline.conftest import QUICK, paint

AVERAGES = ["training.post_hoc.base=1", "training.post_hoc.every=1"]


class Looks:
    """Colours of four quarters of a picture."""

    name, sha256, dim = "quarters", "0" * 64, 12

    def __call__(self, images: Tensor) -> Tensor:
        return 3 * adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="session")
def lab_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two classes of drawn pictures, with averages of its weights."""
    home = tmp_path_factory.mktemp("lab-run")
    return train(paint(home / "shapes", each=16), out=home / "run", size=32, steps=8, overrides=[*QUICK, *AVERAGES])


@pytest.fixture
def run(lab_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of it, looked at by `Looks`."""
    monkeypatch.setattr(trials, "load_extractor", lambda *_: Looks())
    return Run(Path(shutil.copytree(lab_run.folder, tmp_path / "run")))


class Known:
    """Stands in for drawing: real pictures' features, moved off by `error`, what is wrong with the setting.

    The luck of a seed is the same for every setting; `calls` counts the drawings.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Setting, Task]] = []
        monkeypatch.setattr(Bench, "_draw", lambda bench, *asked: self.draw(bench, *asked))
        monkeypatch.setattr(Bench, "ceiling", self.ceiling)  # the run's own autoencoder has hardly been trained

    @staticmethod
    def ceiling(bench: Bench, task: Task) -> Drawn:
        """Pictures as good as they can be."""
        return bench._measured(bench.real[task.rows].repeat_interleave(task.num_images, 0), task)[0]

    @staticmethod
    def error(setting: Setting) -> float:
        """Least at guidance 2, without average, thresholded."""
        sampling = setting.sampling
        wrong = 0.5 * abs(sampling.guidance_scale - 2) + 0.4 * (sampling.threshold == "none")
        return wrong + 0.3 * (setting.weights != "own") + 0.3 * (sampling.sampler != "dpm++2m")

    def draw(
        self, bench: Bench, model: Pipeline, setting: Setting, task: Task, reporter: Reporter
    ) -> tuple[Tensor, float, float]:
        self.calls.append((setting, task))
        luck = torch.Generator().manual_seed(task.seed)
        real = bench.real[task.rows].repeat_interleave(task.num_images, 0)
        error, noise = self.error(setting), 0.3 * torch.randn(real.shape, generator=luck)
        reporter.update(task.count, task.count)
        passes = setting.sampling.num_steps * (2.0 if setting.sampling.sampler == "heun" else 1.0)
        return real + 2 * error + noise, passes / 100, passes


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Drawing whose merits are known."""
    return Known(monkeypatch)
