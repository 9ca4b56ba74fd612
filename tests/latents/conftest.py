"""The tiny diffusers VAE that several tests read, and a copy that each may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.latents.pretrained_making import make


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("vae") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved folder that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "spoilt"))
