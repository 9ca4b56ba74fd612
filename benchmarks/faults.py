"""kill -9 a training at random instants; the same command must end bit-identical to one that was left alone.

    python benchmarks/faults.py [--kills 200] [--ranks 1 2] [--seed 0] [--jobs 1]

For each number of processes (ranks, over gloo): trains a reference, then run after run of the same command that is
killed again and again, at any instant from its start to its bundle, also aimed into the writing of files. Of two
processes one or both are killed; one that is left must end by itself, with one line. A run that came to its end is
compared with the reference, file by file. Prints one JSON object; exit 1 if anything differs or was unreadable.

The commands run in forked children of a process that has imported everything, so that a kill costs a second.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from calotype.cli import main as command_line
from calotype.core.errors import CorruptFileError
from calotype.core.files import verify_folder
from calotype.inspection.resume import STAGES, differences, draw_pictures, fingerprint, newest_step

SPREAD = 10  # parts of a run's work: each kill falls into the next of them
PATIENCE = 20.0  # seconds within which a process that was not killed must have ended
MEMORY = Path(
    "/dev/shm"
)  # what a killed process has written stays in the kernel: waiting for a disk would prove nothing
HARMLESS = "training has slowed"  # the only warning that an undamaged run may give: others work on the machine too
ASIDE = re.compile(r"\..*\.(tmp|old)")
TINY = [
    *("vae.steps=16", "vae.training.batch_size=4", "vae.network.channels=[8,16]"),
    *("training.batch_size=4", "training.log_every=3", "training.validate_every=5", "vae.training.validate_every=4"),
    *("network.channels=[16,32]", "network.emb_channels=16", "network.condition_channels=16"),
    *("training.checkpoint_seconds=0", "vae.training.checkpoint_seconds=0", "sampling.num_steps=2"),
]


@dataclass
class Tally:
    """What came of the kills."""

    kills: int = 0
    killed_in: Counter[str] = field(default_factory=Counter)
    in_mid_write: int = 0
    finished_runs: int = 0
    survivors: int = 0
    unreadable: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        for name, value in other.items():
            if name == "killed_in":
                self.killed_in.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="shared evenly by the numbers of ranks")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes that may compute at once")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of calotype train")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a thread pool would not survive the forks
    results = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        home = Path(folder)
        data = draw_pictures(home / "pictures", side=32, each=8)
        words = ["train", str(data), "--size", "32", "--steps", str(options.steps), "--device", "cpu"]
        words += [word for setting in [*TINY, *options.set] for word in ("--set", setting)]
        import_what_it_needs(words, home)
        for ranks in options.ranks:
            (home / f"{ranks}").mkdir()
            kills = options.kills // len(options.ranks)
            results[str(ranks)] = trial(Trial(home / f"{ranks}", words, ranks), kills, options)
    kills = sum(result["kills"] for result in results.values())
    whole = all(result["identical"] for result in results.values())
    summary = {"kills": kills, "unreadable": sum(len(result["unreadable"]) for result in results.values())}
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({**summary, "identical": whole, "seconds": seconds, "ranks": results}, indent=2))
    return 0 if whole else 1


@dataclass
class Trial:
    """One command in `ranks` processes. `startup` and `work` are seconds, of an undisturbed run."""

    home: Path
    words: Sequence[str]
    ranks: int
    startup: float = 0.0
    work: float = 0.0
    expected: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # of the undisturbed run: about these pictures, not about files

    def start(self, run: Path, told: Path | None = None) -> list[int]:
        """The command, the same every time, in forked children; their numbers, by rank. What they say goes to files."""
        run.parent.mkdir(exist_ok=True)
        group: dict[str, str] = {}
        if self.ranks > 1:
            group = {"WORLD_SIZE": str(self.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        children = []
        for rank in range(self.ranks):
            own = {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}
            if (child := os.fork()) == 0:
                carry_out([*self.words, "--out", str(run)], own, log_of(run, rank), told)
            children.append(child)
        return children

    def finish(self, run: Path, told: Path | None = None) -> float:
        """Let the command run to its end; the seconds it took."""
        started = time.monotonic()
        for rank, child in enumerate(self.start(run, told)):
            if os.waitpid(child, 0)[1] != 0:
                raise SystemExit(f"an undisturbed run fails: {last_words(run, rank)}")
        return time.monotonic() - started

    def measure(self) -> None:
        """Two undisturbed runs, which must agree, and how long one takes."""
        reference, again = self.home / "whole" / "run", self.home / "again" / "run"
        self.finish(reference)
        self.warnings = warnings_of(reference, self.ranks)
        length = self.finish(again)
        self.startup = self.finish(again)  # nothing left to do: what it takes to come up
        self.work = max(length - self.startup, 0.1)
        self.expected = fingerprint(reference)
        if differing := differences(self.expected, fingerprint(again)):
            raise SystemExit(f"two undisturbed runs differ in {differing}")


def carry_out(words: list[str], environment: dict[str, str], log: Path, told: Path | None) -> None:
    """The forked child: the command line itself. `told`: where to name the modules that it came to import."""
    status = 1
    try:
        os.environ.update(environment)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.register(signal.SIGUSR1)
        status = command_line.run(words)
        if told is not None:
            told.write_text("\n".join(sys.modules))
        sys.stderr.flush()
    finally:
        os._exit(status)


def import_what_it_needs(words: Sequence[str], home: Path) -> None:
    """Have everything imported here that the command imports in the course of a run."""
    (home / "first").mkdir()
    Trial(home / "first", words, 1).finish(home / "first" / "run", home / "modules")
    for name in (home / "modules").read_text().split():
        if name not in sys.modules:
            with suppress(Exception):  # some exist only under the name of whoever imports them
                importlib.import_module(name)


def trial(trial: Trial, kills: int, options: argparse.Namespace) -> dict[str, Any]:
    """The reference, and runs that are killed, in several processes if there are cores for them."""
    trial.measure()
    started = time.monotonic()
    workers = max(1, options.jobs // trial.ranks)
    tally = Tally()
    children = []
    for worker in range(workers):
        share = kills // workers + (worker < kills % workers)
        if (child := os.fork()) == 0:
            status = 1
            try:
                found = kill_runs(trial, share, random.Random(f"{options.seed}/{trial.ranks}/{worker}"), worker)
                (trial.home / f"{worker}.json").write_text(json.dumps(vars(found)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    for worker, child in enumerate(children):
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("a part of the trial failed")
        tally.add(json.loads((trial.home / f"{worker}.json").read_text()))
    return {
        **vars(tally),
        "undisturbed_seconds": round(trial.startup + trial.work, 2),
        "startup_seconds": round(trial.startup, 2),
        "seconds": round(time.monotonic() - started, 1),
        "compared": len(trial.expected),
        "identical": tally.finished_runs > 0 and not tally.unreadable and not tally.differing,
    }


def kill_runs(trial: Trial, kills: int, chance: random.Random, worker: int) -> Tally:
    """Runs one after the other, each killed until it comes to its end; the last one is let live in the end."""
    tally, number, run = Tally(), 0, trial.home / f"{worker}-0" / "run"
    while tally.kills < kills and len(tally.unreadable) < 20:
        if attempt(trial, run, chance, tally):
            compare(trial, run, tally)
            number += 1
            run = trial.home / f"{worker}-{number}" / "run"
    if run.exists():
        trial.finish(run)
        compare(trial, run, tally)
    return tally


def attempt(trial: Trial, run: Path, chance: random.Random, tally: Tally) -> bool:
    """Start or continue the run and kill it; whether it is over: at its end, or by a failure, which is noted."""
    aim = chance.choices(("coming up", "work", "write"), (2, 5, 3))[0]
    reached = {stage: newest_step(run / stage) for stage in STAGES}
    seen = asides(run)
    children = Children(trial.start(run))
    if aim == "coming up":
        over = children.ended_within(chance.uniform(0, 1.5 * trial.startup))
    else:  # its first write shows that it is at work
        over = children.ended_within(PATIENCE, unless=lambda: bool(asides(run) - seen))
        over = over or children.ended_within(chance.uniform(0, trial.work / SPREAD))
    if not over and aim == "write":
        earlier = asides(run)
        over = children.ended_within(trial.work / SPREAD, unless=lambda: bool(asides(run) - earlier))
        time.sleep(chance.uniform(0, 0.003))
    if over:
        refused = [rank for rank, status in children.ended.items() if status != 0]
        tally.unreadable += [f"the command does not go on: {last_words(run, rank)}" for rank in refused]
        return True
    stage = stage_of(run)
    # until they have met, only a launcher can know that one of them is gone: there it would be the one to end the other
    met = log_of(run, 0).exists() and log_of(run, 0).stat().st_size > 0
    everyone = list(range(trial.ranks))
    victims = chance.choice([[rank] for rank in everyone] + [everyone]) if met else everyone
    tally.survivors += len(set(children.alive) - set(victims))
    children.kill(victims)
    tally.in_mid_write += bool(asides(run) - seen)
    tally.kills += 1
    tally.killed_in[stage] += 1
    if not children.ended_within(PATIENCE):
        for rank, number in children.alive.items():
            os.kill(number, signal.SIGUSR1)  # it says where it is
            time.sleep(0.5)
            tally.unreadable.append(f"rank {rank} did not end by itself: {last_words(run, rank, 30)}")
        children.kill(everyone)
        children.ended_within(PATIENCE)
    tally.unreadable += faults_in(trial, run, children.ended, reached)
    return False


class Children:
    """Forked processes by rank, and the statuses of those that ended."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.alive, self.ended = dict(enumerate(numbers)), dict[int, int]()

    def ended_within(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all have ended, the time is over, or `unless` is the case; whether all have ended."""
        until = time.monotonic() + seconds
        while True:
            for rank, number in list(self.alive.items()):
                ended, status = os.waitpid(number, os.WNOHANG)
                if ended:
                    self.ended[rank] = status
                    del self.alive[rank]
            if not self.alive or time.monotonic() >= until or unless():
                return not self.alive
            time.sleep(0.0005)

    def kill(self, ranks: Sequence[int]) -> None:
        for rank in ranks:
            if rank in self.alive:
                os.kill(self.alive[rank], signal.SIGKILL)


def faults_in(trial: Trial, run: Path, statuses: dict[int, int], reached: dict[str, int]) -> list[str]:
    """What a kill has spoilt: work lost that was saved, a folder not whole, a survivor or a start that complains."""
    found = [
        f"{stage}: step {step} was saved and is gone"
        for stage, step in reached.items()
        if newest_step(run / stage) < step
    ]
    newest = [max((run / stage).glob("step-*"), default=None) for stage in STAGES]
    for folder in (*newest, run / "model"):
        try:
            if folder is not None and folder.exists():
                verify_folder(folder)
        except CorruptFileError as error:
            found.append(str(error))
    found += [line for line in warnings_of(run, trial.ranks) if line not in trial.warnings and HARMLESS not in line]
    for rank, status in statuses.items():
        errors = [line for line in lines_of(run, rank) if line.startswith("error:")]
        if status not in (0, signal.SIGKILL) and not (os.waitstatus_to_exitcode(status) == 2 and len(errors) == 1):
            found.append(f"rank {rank} ended with status {status}: {last_words(run, rank)}")
    return found


def compare(trial: Trial, run: Path, tally: Tally) -> None:
    """A run that came to its end, with the reference; it is removed if there is nothing to be seen in it."""
    tally.finished_runs += 1
    tally.differing += differences(trial.expected, fingerprint(run))
    shutil.rmtree(run.parent)


def stage_of(run: Path) -> str:
    """What the run was at, for the record."""
    report, model = run / "report.html", run / "model"
    if report.exists() and model.exists() and report.stat().st_mtime > model.stat().st_mtime:
        return "at its end"
    signs = [(model, "report"), (run / "samples" / "final.png", "bundle")]
    signs += [(run / "latents" / "health.json", "denoiser"), (run / "latents", "latents")]
    signs += [(run / "journal.jsonl", "vae"), (run / "config.yaml", "taking in pictures")]
    return next((name for sign, name in signs if sign.exists()), "coming up")


def asides(run: Path) -> set[str]:
    """Files and folders half written."""
    folders = [run, *(run / name for name in ("data", "vae", "latents", "denoiser", "samples"))]
    return {name for folder in folders if folder.is_dir() for name in os.listdir(folder) if ASIDE.fullmatch(name)}


def log_of(run: Path, rank: int) -> Path:
    return run.parent / f"{rank}.log"


def lines_of(run: Path, rank: int) -> list[str]:
    """What a rank has said, as far as it came."""
    return log_of(run, rank).read_text(errors="replace").splitlines() if log_of(run, rank).exists() else []


def warnings_of(run: Path, ranks: int) -> list[str]:
    return [line for rank in range(ranks) for line in lines_of(run, rank) if line.startswith("warning:")]


def last_words(run: Path, rank: int, lines: int = 4) -> str:
    return "\n".join(lines_of(run, rank)[-lines:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
