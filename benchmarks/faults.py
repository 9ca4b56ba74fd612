"""kill -9 a training at random instants of both stages; the same command must end bit-identical to an undisturbed run.

    python benchmarks/faults.py [--kills 12] [--steps 100] [--vae-steps 250] [--seed 0]

Trains a reference with --steps, then another run that is killed `kills` times at random moments of its work,
and goes on by the same command each time. Prints one JSON object; exit 1 if anything differs or was unreadable.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--vae-steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="openmoji")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = trial(Path(folder), options)
    print(json.dumps(result, indent=2))
    return 0 if result["identical"] else 1


def trial(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """The reference, the killed run, and what they have in common."""
    started = time.monotonic()
    finish(folder / "whole", options)
    length = time.monotonic() - started
    started = time.monotonic()
    finish(folder / "whole", options)  # nothing left to do: what it takes to come up
    startup = time.monotonic() - started
    chance = random.Random(options.seed)
    blows = sorted(chance.uniform(0, length - startup) for _ in range(options.kills))
    killed_in: dict[str, int] = {}
    for before, blow in zip([0.0, *blows], blows, strict=False):
        process = start(folder / "killed", options)
        try:
            process.wait(startup + blow - before)
        except subprocess.TimeoutExpired:
            stage = stage_of(folder / "killed")
            process.send_signal(signal.SIGKILL)
            killed_in[stage] = killed_in.get(stage, 0) + 1
        if process.wait() not in (0, -signal.SIGKILL):
            raise SystemExit(f"the killed run could not go on: exit {process.returncode}")
    finish(folder / "killed", options)
    whole, killed = digests(folder / "whole"), digests(folder / "killed")
    differing = sorted(name for name in {*whole, *killed} if whole.get(name) != killed.get(name))
    return {
        "kills": sum(killed_in.values()),
        "killed_in": killed_in,
        "undisturbed_seconds": round(length, 1),
        "compared": sorted(whole),
        "differing": differing,
        "identical": not differing and bool(whole) and sum(killed_in.values()) > 0,
    }


def start(run: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """The command, the same every time."""
    words = [sys.executable, "-m", "calotype", "train", options.data, "--out", str(run), "--steps", str(options.steps)]
    words += ["--set", f"vae.steps={options.vae_steps}", "--set", "training.checkpoint_seconds=0.5"]
    words += ["--set", "vae.training.checkpoint_seconds=0.5", "--size", "64"]
    with open(run.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def finish(run: Path, options: argparse.Namespace) -> None:
    """Let the command run to its end."""
    if start(run, options).wait() != 0:
        raise SystemExit(run.with_suffix(".log").read_text()[-2000:])


def stage_of(run: Path) -> str:
    """What the run was at, for the record."""
    if any((run / "denoiser").glob("step-*")):
        return "denoiser"
    if (run / "latents").is_dir():
        return "denoiser, before its first checkpoint"
    return "vae" if any((run / "vae").glob("step-*")) else "before the vae's first checkpoint"


def digests(run: Path) -> dict[str, str]:
    """sha256 of weights, averages and optimiser states of both stages, and of the metrics but for clock times."""
    found = {}
    for stage in ("vae", "denoiser"):
        newest = max((run / stage).glob("step-*"))
        for path in sorted(newest.glob("*.safetensors")):
            found[f"{stage}/{newest.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in record.items() if key not in ("time", "rate")} for record in records]
    found["metrics.jsonl"] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    for name in ("denoiser.safetensors", "vae.safetensors"):
        found[f"model/{name}"] = hashlib.sha256((run / "model" / name).read_bytes()).hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
