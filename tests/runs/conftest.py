"""The scripts of runs/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RUNS = Path(__file__).parents[2] / "runs"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Loads runs/NAME.py."""

    def loaded(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"runs_{name}", RUNS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look their names up
        spec.loader.exec_module(module)
        return module

    return loaded
