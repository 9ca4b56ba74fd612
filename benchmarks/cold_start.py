"""From a fresh process to a picture on disk, beside what importing torch alone takes.

    python benchmarks/cold_start.py [MODEL] [--prompt WORDS] [--rounds N] [--json FILE]

Each round starts two processes, `python -c "import torch"` and `calotype sample MODEL WORDS`, one after the other, so
that whatever else the machine does meets both. One round before the first warms the file cache. Told are medians of
wall time and of processor time, the ratios of each round's pair, and the highest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

KEYS = ("seconds", "processor_seconds", "peak_mb")


def measured(words: list[str], folder: Path) -> dict[str, float]:
    """One process from start to end: wall seconds, processor seconds, and its peak of resident memory."""
    with open(folder / "told.txt", "w+") as told:
        started = time.perf_counter()
        process = subprocess.Popen(words, cwd=folder, stdout=told, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            sys.exit(f"{' '.join(words)} ended with status {process.returncode}:\n{told.read()}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * unit / 1e6,
    }


def compare(model: str, prompt: str, rounds: int) -> dict[str, object]:
    """Medians of both commands over `rounds`, and how many times as long the second takes."""
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "calotype sample": [sys.executable, "-m", "calotype", "sample", model, prompt, "--out", "pictures"],
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as aside:
        for number in range(rounds + 1):
            for name, words in commands.items():
                figures = measured(words, Path(aside))
                if number:
                    taken[name].append(figures)
        if len(list(Path(aside).glob("pictures/*.png"))) != rounds + 1:
            sys.exit("the command drew other than one picture a round")
    result: dict[str, object] = {"model": model, "prompt": prompt, "rounds": rounds}
    for name, figures in taken.items():
        result[name] = {key: round(median(one[key] for one in figures), 3) for key in KEYS}
    pairs = list(zip(taken["calotype sample"], taken["import torch"], strict=True))
    result["ratio"] = round(median(ours["seconds"] / theirs["seconds"] for ours, theirs in pairs), 3)
    result["processor_ratio"] = round(
        median(ours["processor_seconds"] / theirs["processor_seconds"] for ours, theirs in pairs), 3
    )
    result["peak_mb"] = round(max(ours["peak_mb"] for ours, _ in pairs), 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="openmoji-64", help="a shipped name, run or bundle")
    parser.add_argument("--prompt", default="a red heart")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    model = str(Path(given.model).resolve()) if Path(given.model).exists() else given.model
    result = compare(model, given.prompt, given.rounds)
    text = json.dumps(result, indent=2)
    if given.json:
        given.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
