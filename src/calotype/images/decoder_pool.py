"""Decoding processes that are watched, killed when they hang, and replaced when they die."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from threading import Event, Lock, Thread
from typing import Any, BinaryIO, cast

import numpy as np

import calotype
from calotype.core.errors import UserError
from calotype.images.decode import Decoded, Transform, UnreadablePictureError
from calotype.images.decoder_process import receive, send

_START_SECONDS = 60.0
_START_TRIES = 3
_DYING_SECONDS = 0.5  # between a process's last word and its end
_CODE = """
import json, sys
sys.path[:], transform, seconds = json.loads(sys.argv[1])
from calotype.images.decoder_process import serve
serve(transform, seconds)
"""


def decoder_command(transform: Transform, seconds: float) -> list[str]:
    """This interpreter as a decoding process: with this one's search path, and without its start-up hooks."""
    path = [*filter(None, map(str, sys.path)), str(Path(calotype.__file__).parents[1])]
    return [sys.executable, "-I", "-S", "-c", _CODE, json.dumps([path, vars(transform), seconds])]


class DecoderPool:
    """Up to `processes` of `command`, started when needed. Threads call `decode`; a context that ends with all gone."""

    def __init__(self, command: Sequence[str], *, processes: int, seconds: float) -> None:
        self._children = [_Child(command, seconds) for _ in range(processes)]
        self._idle: LifoQueue[_Child] = LifoQueue()  # last in, first out: no more are started than are busy at once
        for child in self._children:
            self._idle.put(child)
        self._over = Event()
        self._watch = Thread(target=self._watched, args=(min(0.25, seconds / 4),), name="decoder-watch", daemon=True)

    def __enter__(self) -> DecoderPool:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._watch.join()
        for child in self._children:
            child.bury()

    def decode(self, content: bytes) -> Decoded:
        """The squares of a file. Raises UnreadablePictureError, also where its decoder died of it or was too slow."""
        child = self._idle.get()
        try:
            return child.decode(content)
        finally:
            self._idle.put(child)

    def stop(self) -> None:
        """End all processes; what is being decoded is given up."""
        self._over.set()
        for child in self._children:
            child.stop()

    def _watched(self, tick: float) -> None:
        last = time.monotonic()
        while not self._over.wait(tick):
            now = time.monotonic()
            for child in self._children:
                # what passes while this process is stopped (Ctrl-Z, a laptop's lid) is nobody's fault
                child.spend(min(now - last, 2 * tick))
            last = now


class _Child:
    """One process, started when first needed and again after its death. Only the thread that decodes reads and buries.

    `_left` are the seconds it has for what it does now; the watching thread takes from them.
    """

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self._command, self._seconds = command, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._left = math.inf
        self._late = self._stopped = False

    def decode(self, content: bytes) -> Decoded:
        process = self._process
        if process is None or self._late or process.poll() is not None:
            process = self._start()
        answer = self._ask(process, content)
        if answer is None:
            raise UnreadablePictureError(self._cause_of_death(process))
        if isinstance(answer, str):
            raise UnreadablePictureError(answer)
        return answer

    def spend(self, seconds: float) -> None:
        """So much time has passed: a process that has had its share is killed."""
        with self._lock:
            self._left -= seconds
            if self._left <= 0 and self._process is not None:
                self._late = True
                self._process.kill()

    def stop(self) -> None:
        """Kill the process, and start no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def bury(self) -> None:
        """Leave nothing of the process behind."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                cast(BinaryIO, stream).close()
        process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        for _ in range(_START_TRIES):
            self.bury()
            with self._lock:
                if self._stopped:
                    raise UnreadablePictureError("stopped")
                self._late = False
                self._process = process = _started(self._command)
            if self._ask(process, None) is not None:
                return process
            cause = self._cause_of_death(process)
        raise UserError(
            f"the decoding process does not start: {cause}",
            f"see what '{self._command[0]} -c \"import calotype.images.decode\"' says",
        )

    def _ask(self, process: subprocess.Popen[bytes], content: bytes | None) -> Decoded | str | None:
        """What becomes of a file: squares or a reason; without one, the greeting. None from a process that died."""
        stdin, stdout = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        with self._lock:
            self._left = _START_SECONDS if content is None else self._seconds
        try:
            if content is not None:
                send(stdin, content)
            return _understood(json.loads(receive(stdout)), receive(stdout))
        except (OSError, EOFError, ValueError, TypeError, LookupError):
            return None
        finally:
            with self._lock:
                self._left = math.inf

    def _cause_of_death(self, process: subprocess.Popen[bytes]) -> str:
        """Bury it, and say why as the reason of a refusal."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DYING_SECONDS)
        status = process.poll()
        self.bury()
        if self._late:
            return f"its decoder took more than {self._seconds:g} s"
        if status is None:
            return "its decoder's answer made no sense"
        if status >= 0:
            return f"its decoder ended with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"its decoder was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _understood(facts: dict[str, Any], pixels: bytes) -> Decoded | str:
    if "reason" in facts:
        return str(facts["reason"])
    shape = facts.pop("shape")
    return Decoded(pixels=np.frombuffer(pixels, dtype=np.uint8).reshape(shape).copy(), **facts)


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # a numeric library's threads would only take address space, and a group of its own keeps Ctrl-C and Ctrl-Z away
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, process_group=0
        )
    except OSError as error:
        raise UserError(f"the decoding process does not start: {error}", "close other programs and try again") from None
