"""Proof of exact resume: a run killed in mid-stage and continued is, byte for byte, the run that was left alone."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from calotype.core.errors import UserError
from calotype.core.files import read_json, read_lines
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.training.journal import Journal

STAGES = ("vae", "denoiser")
# What differs from one run to the next, wherever it stands in a record: clock times, and the run's own mark.
CLOCK = frozenset({"rate", "segment_began", "spent", "time", "id", "identity"})
# The lock is empty, the report shows times, a tracker's own run has a name of its own; half-written files are nobody's.
LEFT_OUT = re.compile(r"\.lock|report\.html|trackers/.*|(.*/)?\.[^/]*\.(tmp|old)(/.*)?")
CHECKPOINT = re.compile(r"(?P<stage>[^/]+)/(?P<step>step-\d{8})/(?P<file>.+)")
FASTEST_LOOK = 0.002  # seconds between two looks at how far the run is that will be killed
LATER = 0.25  # seconds, at most, from then to the kill: it may fall into a step or into the writing of a checkpoint


def fingerprint(run_folder: Path) -> dict[str, str]:
    """sha256 of every file that must agree between two runs of one command, by its path in the run.

    All but clock times and the run's own mark: weights, averages, optimiser and objective of each stage's last
    checkpoint (of earlier ones it depends on the clock which there are), metrics, pictures taken in, latents, sheets
    of samples, the bundle.
    """
    last = {stage: max((run_folder / stage).glob("step-*"), default=None) for stage in STAGES}
    found = {}
    for path in sorted(run_folder.rglob("*")):
        name = path.relative_to(run_folder).as_posix()
        if not path.is_file() or LEFT_OUT.fullmatch(name):
            continue
        if parts := CHECKPOINT.fullmatch(name):
            newest = last.get(parts["stage"])
            # the manifest has the sha256 of state.json, and that the seconds spent
            if newest is None or parts["step"] != newest.name or parts["file"] == "manifest.json":
                continue
        found[name] = hashlib.sha256(_timeless(path)).hexdigest()
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of files that only one run has, or that differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def first_difference(one: Path, other: Path) -> dict[str, Any] | None:
    """The first record of two metrics.jsonl that is not the same: its stage and step, and which values differ."""
    for left, right in zip_longest(read_lines(one), read_lines(other), fillvalue=dict[str, Any]()):
        values = [
            name for name in {**left, **right} if name not in CLOCK and repr(left.get(name)) != repr(right.get(name))
        ]
        if values:
            where = left or right
            return {"stage": where.get("stage"), "step": where.get("step"), "values": values}
    return None


def _timeless(path: Path) -> bytes:
    """A file's content; of the records of training, without clock times."""
    if path.name == "state.json":
        return json.dumps(_without_clock(read_json(path)), sort_keys=True).encode()
    if path.name in ("metrics.jsonl", "journal.jsonl"):
        return json.dumps([_without_clock(record) for record in read_lines(path)], sort_keys=True).encode()
    return path.read_bytes()


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(inner) for key, inner in value.items() if key not in CLOCK}
    return [_without_clock(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Trial:
    """One `calotype train` command, to be run in several folders below `home`."""

    home: Path
    words: Sequence[str]

    def folder(self, name: str) -> Path:
        """A run; each has a parent of its own, as one run takes over the latents of another beside it."""
        return self.home / name / "run"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """The command, the same every time; what it says goes to a file."""
        self.folder(name).parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "calotype", *self.words, "--out", str(self.folder(name))]
        with open(self._log(name), "wb") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def finish(self, name: str) -> float:
        """Let the command run to its end; the seconds it took. Raises UserError with what it said if it fails."""
        started = time.monotonic()
        process = self.start(name)
        try:
            if process.wait() != 0:
                raise self._failure(name, process.returncode)
        finally:
            process.kill()
        return time.monotonic() - started

    def kill(self, name: str, stage: str, step: int) -> int | None:
        """Kill -9 the command soon after its checkpoint of `step` of `stage`: the last step saved, None if it ended."""
        process = self.start(name)
        try:
            while newest_step(self.folder(name) / stage) < step:
                if process.poll() is not None:
                    if process.returncode != 0:
                        raise self._failure(name, process.returncode)
                    return None
                time.sleep(FASTEST_LOOK)
            time.sleep(random.uniform(0, LATER))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return newest_step(self.folder(name) / stage)

    def _log(self, name: str) -> Path:
        return self.folder(name).with_suffix(".log")

    def _failure(self, name: str, status: int) -> UserError:
        said = self._log(name).read_text(errors="replace").strip().splitlines() or [f"it ended with status {status}"]
        return UserError(said[-1].removeprefix("error: "))


def newest_step(stage_folder: Path) -> int:
    """The number of the newest checkpoint by name, -1 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in stage_folder.glob("step-*")), default=-1)


def verify_resume(
    data: str | None,
    home: Path,
    *,
    recipe: str = "calotype",
    size: int | None = None,
    steps: int = 40,
    overrides: Sequence[str] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train on `data` (None: pictures drawn here) undisturbed, then killed in each stage and continued; compare.

    Both runs lie in `home`. The result says what was compared, where it was killed and, if anything differs, what
    differed first, why that may be and what helps. Raises UserError for input that `calotype train` refuses.
    """
    reporter = reporter or Silent()
    if data is None:
        data, size = str(draw_pictures(home / "pictures")), size or 32
    settings = [f"vae.steps={steps}"]
    settings += [f"{part}training.{name}" for part in ("", "vae.") for name in ("checkpoint_seconds=0", "log_every=1")]
    words = ["train", data, "--recipe", recipe, "--steps", str(steps), "--device", device]
    words += [word for setting in [*settings, *overrides] for word in ("--set", setting)]
    words += ["--size", str(size)] if size is not None else []
    trial = Trial(home, words)
    reporter.stage("reference", f"{steps} steps, left alone")
    seconds = trial.finish("whole")
    whole, killed = trial.folder("whole"), trial.folder("killed")
    reporter.say(f"reference: done in {seconds:.0f} s")
    kills = _kill_in_every_stage(trial, Journal(whole / "journal.jsonl"), reporter)
    trial.finish("killed")
    expected = fingerprint(whole)
    differing = differences(expected, fingerprint(killed))
    missed = [kill["stage"] for kill in kills if kill["at_step"] is None]
    result = {
        "identical": not differing and not missed,
        "device": str(choose_device(device)),
        "threads": torch.get_num_threads(),
        "reference_seconds": round(seconds, 1),
        "killed": kills,
        "compared": sorted(expected),
        "differing": differing,
        "command": ["calotype", *words],
    }
    if differing:
        result["first_difference"] = first_difference(whole / "metrics.jsonl", killed / "metrics.jsonl")
        reporter.stage("reference", "once more, to see whether it repeats itself")
        trial.finish("again")
        itself = differences(expected, fingerprint(trial.folder("again")))
        result["cause"], result["remedy"] = _explained(bool(itself), choose_device(device).type)
    elif missed:
        result["cause"] = f"the {missed[0]} was over before it could be killed"
        result["remedy"] = "give more --steps, and leave checkpoint_seconds alone"
    return result


def _kill_in_every_stage(trial: Trial, journal: Journal, reporter: Reporter) -> list[dict[str, Any]]:
    """Kill the run in the middle of each stage that trains, going on by the same command."""
    kills = []
    for stage in STAGES:
        end = journal.segments(stage)[-1].end or 0
        if end == 0:
            continue  # a first stage that came trained
        reporter.stage("kill -9", f"in the {stage} from step {(end + 1) // 2} on")
        reached = trial.kill("killed", stage, (end + 1) // 2)
        kills.append({"stage": stage, "at_step": reached, "of": end})
    return kills


def _explained(repeats_differently: bool, device: str) -> tuple[str, str]:
    """The likely cause of a difference, and what helps."""
    if not repeats_differently:
        return (
            "a run left alone repeats itself to the bit here, a continued one does not: that is a fault of calotype",
            "report it with the settings above",
        )
    if device == "cpu":
        return (
            "two runs left alone differ as well: the number of threads or the machine's load changes the sums",
            "fix the threads, OMP_NUM_THREADS=1 calotype ..., and let nothing else set them meanwhile",
        )
    return (
        f"two runs left alone differ as well: some of this {device} device's kernels add up in another order each time",
        "resume is exact up to that; --device cpu shows the rest, CUBLAS_WORKSPACE_CONFIG=:4096:8 may mend it",
    )


def draw_pictures(folder: Path, side: int = 64, each: int = 48) -> Path:
    """Discs and stripes, `each` in a folder a class, no two alike, the same on every machine."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for kind in ("disc", "stripe"):
        for number in range(each):
            centre, width = draw.uniform(0.3, 0.7, 2) * side, draw.uniform(0.15, 0.3) * side
            away = np.hypot(x - centre[0], y - centre[1]) if kind == "disc" else np.abs((x + y) / 2 - centre[0])
            inside, outside = draw.integers(0, 256, (2, 3))
            noise = draw.integers(0, 16, (side, side, 3))
            pixels = np.clip(np.where((away < width)[..., None], inside, outside) + noise, 0, 255).astype(np.uint8)
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{number:02}.png")
    return folder
