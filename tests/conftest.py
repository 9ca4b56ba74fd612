"""What every test lives under: no host but this one, and a way to run the command in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guard import sitecustomize as guard

ROOT = Path(__file__).parent.parent
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test that tried to reach another host, even where the code under test swallowed the refusal."""
    guard.refused.clear()
    yield
    assert not guard.refused, f"tried to reach {guard.refused}"


@pytest.fixture
def python_alone(tmp_path: Path) -> Command:
    """Run `python ARGUMENTS` in `tmp_path`, in a process that can reach no other host."""
    paths = [str(ROOT / "tests" / "guard"), str(ROOT / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, *arguments]
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def command(python_alone: Command) -> Command:
    """Run `calotype ARGUMENTS` in the same way."""
    return lambda *arguments, timeout=120: python_alone("-m", "calotype", *arguments, timeout=timeout)
