"""The mutation score of the mathematics: process/, sampling/ and the denoiser wrappers under cosmic-ray's operators.

    python benchmarks/mutants.py [--sample 300 | --all] [--seed 0] [--jobs 1] [--only sampling/heun.py]

A mutant (`mutations.py`) is judged by the tests of process, sampling, network and references: its own room first, the
cheapest tests first, in a child forked from one process that has imported all but calotype, on a copy in a temporary
folder. Killed is what makes a test fail or takes thrice the CPU time; what survives is listed, equivalent or not.
Mutants that do not compile are no mutants: others are drawn for them, and their number is printed.
Exit 0 if at least 95 % are killed, 1 if fewer, 2 if the unmutated copy fails before or after, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import importlib.util
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
import pytest_timeout
from mutations import Mutant, draw, generate

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "docs", "examples", "benchmarks")
MUTATED = ("process/*", "sampling/*", "network/guidance", "network/thresholding", "network/denoiser")
TESTED = [room for room in ("process", "sampling", "network", "references") if (ROOT / "tests" / room).is_dir()]
NEEDED = 0.95
MEMORY = 12 << 30  # bytes of address space a child may take
WRONG_COPY = 99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutants to judge")
    parser.add_argument("--all", action="store_true", help="judge every mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="mutate the files whose path contains this")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": "1"}  # CI: hypothesis is exact
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        bench = Bench(Path(folder))
        files = [path for pattern in MUTATED for path in sorted(bench.copy.glob(f"src/calotype/{pattern}.py"))]
        paths = [path.relative_to(bench.copy) for path in files if options.only in str(path)]
        mutants = generate(bench.copy, paths)
        chosen, stillborn = draw(mutants, len(mutants) if options.all else options.sample, options.seed)
        print(f"{len(chosen)} of {len(mutants)} mutants of {len(paths)} files drawn with seed {options.seed}", end="")
        print(f"; {stillborn} that do not compile passed over", flush=True)
        if not bench.passes():
            return 2
        print(
            "CPU seconds of the tests:", {room: round(spent) for room, spent in bench.cpu_seconds.items()}, flush=True
        )
        try:
            with contextlib.closing(bench.judge(chosen, options.jobs)) as judged:
                for count, mutant in enumerate(judged, start=1):
                    if mutant.outcome == "survived" or count % 25 == 0:
                        print(f"[{count}/{len(chosen)}, {bench.minutes()}] {mutant.outcome} {mutant}", flush=True)
            status = 0 if bench.passes() else 2
        except KeyboardInterrupt:
            status = 130
    score = report([mutant for mutant in chosen if mutant.outcome])
    print(bench.minutes())
    return status or int(score < NEEDED)


class Bench:
    """Copies of the sources and their tests, and what is known about the tests: their time, and what they import."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder, folder / "0"
        self.durations: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.started = time.monotonic()
        self.copy.mkdir()
        shutil.copy(ROOT / "pyproject.toml", self.copy)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.copy / name, ignore=shutil.ignore_patterns("__pycache__"))

    def minutes(self) -> str:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = time.process_time() + usage.ru_utime + usage.ru_stime
        return f"{(time.monotonic() - self.started) / 60:.1f} minutes, {cpu / 60:.1f} of CPU"

    def passes(self) -> bool:
        """Whether the tests pass unmutated. Then what they imported is imported here too, for children to inherit."""
        _, status = os.waitpid(self.start(self.copy, None), 0)
        if status != 0:
            print((self.copy / "output.txt").read_text()[-5000:], "\nthe tests fail on the unmutated copy")
            return False
        seen = json.loads((self.copy / "seen.json").read_text())
        self.cpu_seconds, self.durations = seen["cpu_seconds"], seen["durations"]
        for name in seen["modules"]:
            if name.partition(".")[0] not in ("calotype", "tests", "__main__") and name not in sys.modules:
                with warnings.catch_warnings(action="ignore"), contextlib.suppress(Exception):
                    importlib.import_module(name)
        gc.freeze()  # a child that need not look through all this starts four times as fast
        return True

    def judge(self, mutants: list[Mutant], jobs: int) -> Generator[Mutant, None, None]:
        """Yield each mutant as its outcome is known."""
        for path in {mutant.path for mutant in mutants}:  # or bytecode of the same second and size would stand for it
            Path(importlib.util.cache_from_source(self.copy / path)).unlink(missing_ok=True)
        idle = [self.copy, *(Path(shutil.copytree(self.copy, self.folder / str(job))) for job in range(1, jobs))]
        waiting, running = mutants[::-1], {}
        try:
            while waiting or running:
                while waiting and idle:
                    mutant, copy = waiting.pop(), idle.pop()
                    (copy / mutant.path).write_text(mutant.after)
                    running[self.start(copy, mutant)] = (mutant, copy)
                pid, status = os.wait()
                mutant, copy = running.pop(pid)
                (copy / mutant.path).write_text(mutant.before)
                idle.append(copy)
                mutant.outcome = outcome(os.waitstatus_to_exitcode(status))
                yield mutant
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def start(self, copy: Path, mutant: Mutant | None) -> int:
        """Fork a child that runs the tests in `copy`, room by room up to the first failure; its process id."""
        pid = os.fork()
        if pid != 0:
            return pid
        status = WRONG_COPY
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers for all
            os.chdir(copy)
            sys.path[:0] = [str(copy / "src"), str(copy)]
            sys.dont_write_bytecode = mutant is not None
            output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            code = self.run_tests(mutant)
            files = [str(module.__file__) for name, module in sys.modules.items() if name.startswith("calotype")]
            status = code if all(file.startswith(str(copy)) for file in files) else WRONG_COPY
        finally:
            os._exit(status)

    def run_tests(self, mutant: Mutant | None) -> int:
        """pytest's exit status, in a child; unmutated, it leaves what it has seen in seen.json."""
        own = mutant.path.parent.name if mutant else ""
        notes = Notes(self.durations, f"test_{mutant.path.stem}" if mutant else "")
        cpu_seconds: dict[str, float] = {}
        for room in sorted(TESTED, key=lambda room: room != own):
            started = time.process_time()
            if mutant:
                most = math.ceil(started + 3 * self.cpu_seconds[room] + 10)
                resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
            # A busy machine must not look like a kill: CPU seconds are limited, the clock only ends a standstill.
            words = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=1800", f"tests/{room}"]
            code = int(pytest.main(words, plugins=[pytest_timeout, notes]))
            if code != 0:
                return code
            cpu_seconds[room] = time.process_time() - started
        if not mutant:
            seen = {"cpu_seconds": cpu_seconds, "durations": self.durations, "modules": sorted(sys.modules)}
            Path("seen.json").write_text(json.dumps(seen))
        return 0


class Notes:
    """A plugin for pytest: the tests named like the mutated file first, then the cheapest; it notes their durations."""

    def __init__(self, durations: dict[str, float], first: str) -> None:
        self.durations, self.first = durations, first

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: (not item.path.stem.startswith(self.first), self.durations.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.durations[report.nodeid] = self.durations.get(report.nodeid, 0.0) + report.duration


def outcome(code: int) -> str:
    """What the exit status of a child says about its mutant."""
    if code == WRONG_COPY:
        raise RuntimeError("a child tested other sources than its copy")
    known = {0: "survived", 1: "killed by a test", 2: "killed at import", -signal.SIGXCPU: "killed by the time limit"}
    return known.get(code) or f"killed otherwise, status {code}"


def report(mutants: list[Mutant]) -> float:
    """Print the survivors, how the rest ended, and the score, which is returned."""
    survivors = [mutant for mutant in mutants if mutant.outcome == "survived"]
    print(f"\n{len(survivors)} survivors of {len(mutants)} mutants")
    for mutant in sorted(survivors, key=lambda mutant: (mutant.path, mutant.line)):
        print(f"{mutant}\n{mutant.changes}")
    print("\n" + "\n".join(f"{n:5} {end}" for end, n in collections.Counter(m.outcome for m in mutants).most_common()))
    for name_of in (lambda mutant: mutant.kind.__name__.split("_")[0], lambda mutant: str(mutant.path)):
        total, lost = (collections.Counter(map(name_of, group)) for group in (mutants, survivors))
        print(
            "\nkilled, of\n"
            + "\n".join(f"{total[name] - lost[name]:5} {total[name]:5} {name}" for name in sorted(total))
        )
    score = 1 - len(survivors) / len(mutants) if mutants else 0.0
    error = math.sqrt(score * (1 - score) / max(len(mutants), 1))
    print(f"\nmutation score {score:.1%} (standard error {error:.1%}), needed {NEEDED:.0%}")
    return score


if __name__ == "__main__":
    sys.exit(main())
