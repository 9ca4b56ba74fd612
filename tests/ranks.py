"""Scenes for several real processes that talk by gloo: one process imports torch once and forks ranks when asked.

`python -m tests.ranks` reads one job a line, of the keys scene ("module:function"), world, folder and arguments.
A scene is a function whose first argument is a folder for its files; what it returns must be JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
IMPORTED = ("torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed.device_mesh", "torch._dynamo")


@dataclass(frozen=True)
class Ended:
    """How one rank ended: what its scene returned, or what it raised, or the signal that killed it."""

    value: Any = None
    error: str | None = None  # "UserError: ..."
    killed: int | None = None
    seconds: float = 0.0


class Ranks:
    """Sends jobs to the process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ended(self, scene: str, world: int, folder: Path, **arguments: Any) -> list[Ended]:
        """Play a scene on `world` ranks; how each ended."""
        folder.mkdir(parents=True, exist_ok=True)
        job = {"scene": scene, "world": world, "folder": str(folder), "arguments": arguments}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return [Ended(**one) for one in json.loads(self._process.stdout.readline())]

    def __call__(self, scene: str, world: int, folder: Path, **arguments: Any) -> list[Any]:
        """What the scene returned on every rank, none of which may have failed."""
        ended = self.ended(scene, world, folder, **arguments)
        assert all(one.error is None and one.killed is None for one in ended), ended
        return [one.value for one in ended]


@contextmanager
def started() -> Iterator[Ranks]:
    """The process that forks, for a fixture of module scope."""
    paths = [
        str(ROOT),
        str(ROOT / "src"),
        str(ROOT / "tests" / "guard"),
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::DeprecationWarning:calotype", "-m", "tests.ranks"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Ranks(process)
        process.communicate(timeout=10)


def main() -> None:
    """Play jobs until there are no more."""
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a scene prints is no answer
    for line in sys.stdin:
        print(json.dumps(_play(json.loads(line))), file=answers, flush=True)


def _play(job: dict[str, Any]) -> list[dict[str, Any]]:
    folder, world = Path(job["folder"]), job["world"]
    module, function = job["scene"].split(":")
    scene = getattr(importlib.import_module(module), function)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    pids = []
    for rank in range(world):
        (folder / f"ended-{rank}.json").unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            _be(rank, world, port, scene, folder, job["arguments"])
        pids.append(pid)
    return _await(pids, folder, began, job["arguments"].get("patience", 60))


def _await(pids: list[int], folder: Path, began: float, patience: float) -> list[dict[str, Any]]:
    ended: dict[int, dict[str, Any]] = {}
    late = False
    while len(ended) < len(pids):
        for rank, pid in enumerate(pids):
            if rank in ended or os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
            path = folder / f"ended-{rank}.json"
            found = json.loads(path.read_text()) if path.exists() else {"killed": signal.SIGKILL}
            ended[rank] = {**found, "seconds": time.monotonic() - began}
            if late and not path.exists():
                ended[rank] = {"error": f"hung for {patience} s", "seconds": patience}
        if not late and time.monotonic() - began > patience:
            late = True
            for rank, pid in enumerate(pids):
                if rank not in ended:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return [ended[rank] for rank in range(len(pids))]


def _be(rank: int, world: int, port: int, scene: Any, folder: Path, arguments: dict[str, Any]) -> None:
    """One rank, from the fork to its end."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    try:
        arguments.pop("patience", None)
        result = {"value": scene(folder, **arguments)}
    except BaseException as error:
        result = {"error": f"{type(error).__name__}: {error}"}
        if os.environ.get("RANKS_LOUD"):
            traceback.print_exc()
    (aside := folder / f".ended-{rank}").write_text(json.dumps(result))
    aside.rename(folder / f"ended-{rank}.json")
    os._exit(0)


if __name__ == "__main__":
    main()
