"""Whole runs on the same data for the same minutes of one core, and what they come to.

    python benchmarks/side_by_side.py CONTEST [DATA] [--minutes 20] [--only NAME ...] [--prompts 512] [--out FOLDER]

CONTEST is one of those below; DATA what `calotype train` takes (default: openmoji). The minutes are those of one thread
by the processor's clock, so that whatever else the machine does changes nothing; ten minutes on two cores are about
twenty of these. Two runs go on at once. The same command continues, and a finished run is only scored. Prints Markdown,
writes scores.json and pictures.png: a row of each run, from seeds 0 to 7.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import calotype
from calotype.images.grid import plot_images, save_png

# Contest -> name of each run -> what `calotype train` is told besides data, minutes and folder.
CONTESTS: dict[str, dict[str, str]] = {
    "ddpm-64": {
        "ddpm-64": "--size 64 --recipe ddpm-64",
        "calotype": "--size 64 --set condition=none --set vae.from=scratch",
    },
    "text-128": {
        "text-128": "--size 128 --recipe text-128",
        "calotype": "--size 128 --set condition=text --set vae.from=scratch",
    },
}
EACH = 8
# The command line under the processor's clock: every budget, rate and interval of the library is by time.monotonic.
BY_THE_PROCESSOR = "import time; time.monotonic = time.process_time; from calotype.cli.main import main; main()"
MEASURES = {
    "minutes": "minutes of a core",
    "steps": "VAE and denoiser steps",
    "psnr": "PSNR, dB",
    "kernel": "kernel distance, 10⁻³",
    "frechet": "Fréchet distance",
    "captions": "own caption among five, %",
    "held_out_captions": "captions it never saw, %",
    "classes": "own class, %",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("contest", choices=CONTESTS)
    parser.add_argument("data", nargs="?", default="openmoji")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME", help="train these alone, score nothing")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/side-by-side"))
    options = parser.parse_args()
    contest = CONTESTS[options.contest]
    home = options.out / f"{options.contest}-{options.minutes:g}"
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda name: train(options, contest[name], home / name), options.only or contest))
    if options.only is None:
        told = {name: scored(home / name, options) for name in contest}
        (home / "scores.json").write_text(json.dumps(told, indent=1))
        draw([home / name for name in contest], home / "pictures.png")
        print(table(told))
    return 0


def train(options: argparse.Namespace, settings: str, run: Path) -> None:
    """One run to its end, on one thread; a failed one ends the benchmark."""
    asked = ["train", options.data, "--minutes", f"{options.minutes:g}", "--out", str(run), *shlex.split(settings)]
    command = [sys.executable, "-c", BY_THE_PROCESSOR, *asked]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def scored(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`calotype evaluate` of a run, in the words of the table."""
    command = [sys.executable, "-m", "calotype", "evaluate", str(run), "--prompts", str(options.prompts), "--json"]
    record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    facts = json.loads((run / "facts.json").read_text())
    samples, fidelity = record["distances"]["samples"], record["fidelity"]
    told: dict[str, Any] = {
        "minutes": options.minutes,
        "steps": f"{facts['vae_steps']:,} + {facts['denoiser_steps']:,}",
        "psnr": facts["measured"].get("held_out_psnr"),
        "kernel": scaled(samples["kernel"], 1000),
        "frechet": scaled(samples["frechet"], 1),
    }
    for kind in ("captions", "held_out_captions"):
        told[kind] = scaled(fidelity[kind]["top5"], 100) if fidelity.get(kind) else None
    told["classes"] = scaled(fidelity["classes"]["right"], 100) if fidelity.get("classes") else None
    return told


def draw(runs: list[Path], out: Path) -> None:
    """A row of pictures of each run: of its example captions, where it learnt captions."""
    rows, words = [], list[str | None]()
    for run in runs:
        model = calotype.load(run)
        prompts = model.examples[:EACH] if model.captioned else None
        rows += model.sample(prompts, num_images=1 if prompts else EACH, seed=0)
        words += prompts or [run.name] + [None] * (EACH - 1)
    save_png(plot_images(rows, columns=EACH, captions=words), out)


def scaled(estimate: dict[str, float], times: float) -> list[float]:
    """Value and 95 % interval of an estimate, times `times`."""
    return [times * estimate[name] for name in ("value", "low", "high")]


def table(told: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a run, the measures that any of them has."""
    kept = [key for key in MEASURES if any(row.get(key) is not None for row in told.values())]
    lines = ["| |" + "".join(f" {MEASURES[key]} |" for key in kept), "|---|" + "---|" * len(kept)]
    rows = (f"| {name} |" + "".join(f" {cell(row.get(key))} |" for key in kept) for name, row in told.items())
    return "\n".join([*lines, *rows])


def cell(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.3g} [{value[1]:.3g}, {value[2]:.3g}]"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
