"""An encoding that is killed, by the measurement's own script on a small set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cache_faults.py"


def test_a_killed_encoding_ends_with_the_same_files() -> None:
    words = [sys.executable, str(SCRIPT), "--kills", "5", "--pictures", "3100"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    result = json.loads(done.stdout)
    assert (result["kills"], result["shards"]) == (5, 4)
    assert result["differing"] == result["encoded_again"] == []
    assert result["identical"]
