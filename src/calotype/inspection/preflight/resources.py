"""What this machine has left, and what a piece of work takes of it: seconds and the highest memory."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import torch

SAFE = 0.8  # share of the room that may be used: the rest is for what was not foreseen
_LOOK_EVERY = 0.002  # seconds between two looks at memory where the system does not keep its highest
_WORDS = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "failed to allocate")


@dataclass
class Use:
    """What one piece of work took: its `seconds`, and bytes held before it began (`base`) and at most (`peak`).

    On a CPU the bytes are those of the whole process, on a GPU what torch holds there.
    """

    seconds: float = 0.0
    base: int = 0
    peak: int = 0


@contextmanager
def measured(device: torch.device) -> Iterator[Use]:
    """Measure the work within the block."""
    use = Use()
    _give_back(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        use.base = torch.cuda.memory_allocated(device)
        started = time.monotonic()
        yield use
        torch.cuda.synchronize(device)
        use.seconds, use.peak = time.monotonic() - started, torch.cuda.max_memory_allocated(device)
        return
    use.base, watch = resident(), None if _forget_highest() else _Watch()
    started = time.monotonic()
    try:
        yield use
        if device.type == "mps":
            torch.mps.synchronize()
    finally:
        use.seconds = time.monotonic() - started
        highest = _status("VmHWM") if watch is None else watch.stop()
        use.peak = max(highest, use.base)


def room(device: torch.device) -> int | None:
    """Bytes that this process may come to hold in all, by what is free now; None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    free = [_meminfo("MemAvailable"), *_groups_left()]
    known = [value for value in free if value is not None]
    return resident() + max(min(known), 0) if known else None


@contextmanager
def bounded(device: torch.device) -> Iterator[None]:
    """Within the block an allocation beyond the safe share of the room fails, instead of bringing the machine down.

    (On Linux. On a GPU it fails anyway, and nobody else is hurt.)
    """
    limit, held = room(device), _status("VmData")
    if device.type == "cuda" or limit is None or not held or sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + max(int(SAFE * limit) - resident(), 0)
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; torch's on a CPU are plain RuntimeErrors."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def resident() -> int:
    """Bytes of main memory that this process holds now."""
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Watch:
    """The highest of many looks."""

    def __init__(self) -> None:
        self.highest, self._over = 0, Event()
        self._thread = Thread(target=self._look, name="memory-watch", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return max(self.highest, resident())

    def _look(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            self.highest = max(self.highest, resident())


def _give_back(device: torch.device) -> None:
    """Return what nobody uses to the system, so that the next piece of work does not seem to take nothing."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library keeps what it has
            ctypes.CDLL(None).malloc_trim(0)


def _forget_highest() -> bool:
    """Have the system begin anew with the highest memory of this process; False where it does not do that."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return 0 < _status("VmHWM") <= 1.1 * resident() + 2**22


def _status(name: str) -> int:
    """A size in bytes from /proc/self/status; 0 where there is none."""
    return _sized(Path("/proc/self/status"), name) or 0


def _meminfo(name: str) -> int | None:
    return _sized(Path("/proc/meminfo"), name)


def _sized(path: Path, name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _groups_left(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What each control group that this process is in may still take; files that are only cached count as free."""
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds == "":
                where, limit, used = root, "memory.max", "memory.current"
            elif "memory" in kinds.split(","):
                where, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            folder = where / name.lstrip("/")
            for group in (folder, *folder.parents):
                with suppress(OSError, ValueError):
                    cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    held = int((group / used).read_text()) - int(cached.get("inactive_file", 0))
                    yield int((group / limit).read_text()) - held + int(cached.get("active_file", 0))
                if group == where:
                    break
