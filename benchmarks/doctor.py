"""The doctor at length: every planted fault under every check, and no finding on healthy runs of five kinds.

python benchmarks/doctor.py [--out FOLDER]     about ten minutes on two cores; prints JSON, exit status 1 on a miss

The runs are small and made here; what is planted, and where, is in tests/inspection/doctor/planting.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from calotype.inspection.doctor import diagnose
from calotype.pipeline import Run, train
from tests.inspection.doctor.planting import COLOURS, IN_DATA, IN_RUNS, QUICK, SIZE, drawing, paint

LONGER = [*QUICK, "vae.steps=300", "sampling.num_steps=20", "training.log_every=10", "training.validate_every=100"]


def classes(folder: Path, count: int = 400) -> Path:
    """A folder a colour."""
    draw = np.random.default_rng(1)
    for k in range(count):
        colour = list(COLOURS)[k % len(COLOURS)]
        (folder / colour).mkdir(parents=True, exist_ok=True)
        drawing(draw, colour, ("disc", "square")[k // 4 % 2]).save(folder / colour / f"{k:03}.png")
    return folder


def without_words(folder: Path, count: int = 400) -> Path:
    paint(folder, count)
    (folder / "metadata.jsonl").unlink()
    return folder


def grey(folder: Path, count: int = 400) -> Path:
    """Two shapes over each other, without colour or words."""
    draw = np.random.default_rng(2)
    folder.mkdir(parents=True)
    for k in range(count):
        one, other = (drawing(draw, str(draw.choice(list(COLOURS))), kind) for kind in ("disc", "square"))
        Image.blend(one, other, draw.uniform(0.3, 0.7)).convert("L").save(folder / f"{k:03}.png")
    return folder


HEALTHY: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "captions": (lambda folder: paint(folder, 400), {"steps": 400}),
    "classes": (classes, {"steps": 400, "seed": 1}),
    "nothing asked for": (without_words, {"steps": 400}),
    "greyscale": (grey, {"steps": 400, "seed": 2}),
    "little data": (lambda folder: paint(folder, 80), {"steps": 150}),
}


def planted(home: Path) -> list[dict[str, Any]]:
    """Each fault in a copy of one run or set, all checks."""
    run = train(paint(home / "shapes"), out=home / "run", size=SIZE, steps=120, overrides=QUICK)
    rows = []
    for fault, (plant, name, also) in IN_RUNS.items():
        copy = Path(shutil.copytree(run.folder, home / "planted"))
        plant(Run(copy))
        rows.append(judged(fault, name, also, copy))
        shutil.rmtree(copy)
    for fault, (spoil, name, also) in IN_DATA.items():
        copy = Path(shutil.copytree(home / "shapes", home / "planted"))
        spoil(copy)
        rows.append(judged(fault, name, also | {"enlarged"}, copy))
        shutil.rmtree(copy)
    return rows


def judged(fault: str, name: str | None, also: set[str], target: Path) -> dict[str, Any]:
    """What is found of `target`, where `name` is to be found and nothing that is not in `also`."""
    started = time.monotonic()
    found = [finding.name for finding in diagnose(target, device="cpu").findings]
    right = (name is None or name in found) and set(found) - {name} <= also
    seconds = round(time.monotonic() - started, 1)
    row = {"planted": fault, "expected": name, "found": found, "right": right, "seconds": seconds}
    print(json.dumps(row), flush=True)
    return row


def healthy(home: Path) -> list[dict[str, Any]]:
    """Runs of five kinds, of which nothing is to be said."""
    rows = []
    for kind, (make, settings) in HEALTHY.items():
        folder = home / kind.replace(" ", "-")
        run = train(make(folder / "pictures"), out=folder / "run", size=SIZE, overrides=LONGER, **settings)
        rows.append(judged(kind, None, set(), run.folder))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the healthy runs here")
    parser.add_argument("--only", choices=("planted", "healthy"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        faults = planted(Path(aside)) if asked.only != "healthy" else []
        runs = healthy(asked.out or Path(aside) / "healthy") if asked.only != "planted" else []
    right = sum(row["right"] for row in faults), sum(row["right"] for row in runs)
    print(json.dumps({"faults": len(faults), "named": right[0], "healthy": len(runs), "nothing_said": right[1]}))
    return int(right != (len(faults), len(runs)))


if __name__ == "__main__":
    sys.exit(main())
