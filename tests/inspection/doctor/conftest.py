"""One small run, made once, and copies of it to plant faults in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calotype.pipeline import Run, train
from tests.inspection.doctor.planting import QUICK, SIZE, paint


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run: far too short to be good, but nothing is wrong with its parts."""
    home = tmp_path_factory.mktemp("doctor")
    return train(paint(home / "shapes"), out=home / "run", size=SIZE, steps=120, overrides=QUICK)


@pytest.fixture
def run(healthy: Run, tmp_path: Path) -> Run:
    """A copy to plant a fault in."""
    shutil.copytree(healthy.folder, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("doctor-data") / "shapes", 120)


@pytest.fixture
def pictures(painted: Path, tmp_path: Path) -> Path:
    """A copy of a set of pictures to plant a fault in."""
    return Path(shutil.copytree(painted, tmp_path / "shapes"))
