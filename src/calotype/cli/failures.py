"""Every exception as one line and an exit status: 2 when the user can mend it, else 1."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from dataclasses import dataclass

from typer.exceptions import TyperException

from calotype.cli.output import one_line
from calotype.core.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MENDS = {
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.EISDIR: "a folder stands where a file is needed; choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@dataclass(frozen=True)
class Failure:
    line: str
    status: int


def explain(error: BaseException) -> Failure:
    """What to tell the user about `error`, and the exit status."""
    if isinstance(error, UserError):
        return Failure(f"error: {one_line(str(error))}", 2)
    if isinstance(error, TyperException):
        return Failure(f"error: {_usage(error)}", 2)
    if isinstance(error, KeyboardInterrupt):
        return Failure(
            "interrupted: what was written is whole, and a 'train', 'quickstart' or sweep given again goes on", 1
        )
    if _is_disk_full(error):
        return Failure(f"error: the disk is full{_at(error)}: free some space, then give the same command again", 2)
    if isinstance(error, OSError) and error.errno in _MENDS and error.filename is not None:
        reason = os.strerror(error.errno).lower()
        return Failure(f"error: {one_line(str(error.filename))}: {reason}: {_MENDS[error.errno]}", 2)
    return Failure(_internal(error), 1)


def _usage(error: TyperException) -> str:
    """A misspelt option or value, and where its help is."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "calotype"
    return f"{one_line(error.format_message()).rstrip('.')}: see '{where} --help'"


def _is_disk_full(error: BaseException) -> bool:
    """True for an OSError that says so, and for safetensors and torch, which wrap it in exceptions of their own."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    return os.strerror(errno.ENOSPC) in str(error)


def _at(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" (writing {one_line(str(name))})" if name else ""


def _internal(error: BaseException) -> str:
    """A fault of ours: one line, with the traceback in a file for whoever mends it."""
    said = f"internal error: {type(error).__name__}: {one_line(str(error))[:300]}"
    try:
        descriptor, path = tempfile.mkstemp(prefix="calotype-", suffix=".log")
        with open(descriptor, "w") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError as problem:
        return f"{said} (its traceback could not be written: {problem.strerror})"
    return f"{said} (the traceback is in {path})"
