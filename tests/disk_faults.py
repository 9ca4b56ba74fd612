"""A disk that fails, or a process that dies, at the first, second, third ... call by which files are written."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from calotype.core import files

CALLS = ("replace", "rename", "open", "mkdir", "unlink", "rmdir")
FAULTS = [(errno.ENOSPC, False), (errno.EIO, False), (errno.EIO, True)]  # error; does every later call fail too?


class Fault(OSError):
    """The injected fault; any other exception is a finding."""


class Faults:
    """Counts the calls that touch the disk, and strikes at one of them, or at it and at all that follow."""

    def __init__(self, at: int, strike: Callable[[], None], *, lasting: bool = False) -> None:
        self.count, self._at, self._strike, self._lasting = 0, at, strike, lasting
        self._open, self._exchange = io.open, files._exchange

    def touch(self) -> None:
        self.count += 1
        if self.count == self._at or (self._lasting and self.count > self._at):
            self._strike()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*arguments: Any, **options: Any) -> Any:
            self.touch()
            return function(*arguments, **options)

        return struck

    def opening(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """`open` whose writes fail half-way."""
        self.touch()
        file = self._open(path, mode, *arguments, **options)
        return _HalfWriter(file, self) if "w" in mode or "a" in mode else file

    def exchange(self, one: Any, other: Any) -> bool:
        """The swap of two folders, which a process may also outlive by no call at all."""
        self.touch()
        swapped = self._exchange(one, other)
        self.touch()
        return swapped

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, self.around(getattr(os, name)))
        patch.setattr(
            os, "fsync", lambda descriptor: self.touch()
        )  # the real one is slow, and none looks at the platter
        patch.setattr(files, "open", self.opening, raising=False)
        patch.setattr(io, "open", self.opening)  # pathlib's
        patch.setattr(files, "_exchange", self.exchange)


class _HalfWriter:
    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __enter__(self) -> "_HalfWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._faults.touch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._faults.touch()
        return self._file.write(content[len(content) // 2 :])


def each_fault(work: Callable[[], object], error: int, lasting: bool) -> Iterator[Fault | None]:
    """Do `work` again and again, its first, second, third ... call failing, until none is left to fail.

    Yields after each the fault that came up to the caller, if it did.
    """

    def strike() -> None:
        raise Fault(error, os.strerror(error))

    for at in range(1, 500):
        faults, raised = Faults(at, strike, lasting=lasting), None
        with pytest.MonkeyPatch.context() as patch:
            faults.install(patch)
            try:
                work()
            except Fault as fault:
                raised = fault
        yield raised
        if faults.count < at:
            assert at > 3, "no call was intercepted"
            return


def each_kill(work: Callable[[], object]) -> Iterator[None]:
    """The same with a process that dies there, as by kill -9: nothing of its clean-up runs."""
    for at in range(1, 500):
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                Faults(at, lambda: os._exit(9)).install(patch)
                status = 1
                try:
                    work()
                    status = 0
                finally:
                    os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        yield
        if status == 0:
            assert at > 3, "no call was intercepted"
            return
