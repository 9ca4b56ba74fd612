"""Real kills of real trainings, on one process and on two: benchmarks/faults.py in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT


def killed(kills: int, ranks: int) -> dict[str, Any]:
    """What the benchmark found."""
    words = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills", str(kills), "--ranks", str(ranks)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout)["ranks"][str(ranks)])


@pytest.mark.parametrize(("kills", "ranks"), [(36, 1), (16, 2)])
def test_a_run_killed_at_any_instant_ends_as_one_left_alone(kills: int, ranks: int) -> None:
    found = killed(kills, ranks)
    assert found["unreadable"] == []
    assert found["differing"] == []
    assert found["identical"]
    assert found["kills"] == kills
    assert {"vae", "denoiser"} <= found["killed_in"].keys()
    assert found["finished_runs"] >= 1
    assert found["compared"] > 20
    assert ranks == 1 or found["survivors"] > 0
