"""The decoding process: files come in on stdin, squares go out on stdout. Loads neither torch nor pydantic.

A decoder written in C that crashes, hangs or allocates without end on hostile bytes takes this process with it, and
never the run. Its first answer, before any file, says that it is ready; it ends when its parent does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any, BinaryIO

from calotype.images.decode import Transform, UnreadablePictureError, decode

MEMORY = 2 * 2**30  # bytes a picture may take: a file of MAX_BYTES with MAX_PIXELS in it takes less
_MAX_PART = 2**30
_GRACE = 5.0  # seconds above the limit: the parent is expected to act first


def serve(wishes: dict[str, Any], seconds: float) -> None:
    """Decode until stdin ends. `wishes` are a Transform's fields; `seconds` are the most that one picture may take."""
    transform = Transform(**wishes | {"background": tuple(wishes["background"])})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    warnings.simplefilter("ignore")
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what a library prints must not get between the answers
    _set_limits()
    send(outgoing, b'{"reason": "ready"}', b"")
    with suppress(EOFError):
        while True:
            facts, pixels = _decoded(receive(incoming), transform, seconds)
            send(outgoing, json.dumps(facts).encode(), pixels)


def _decoded(content: bytes, transform: Transform, seconds: float) -> tuple[dict[str, Any], bytes]:
    """What `decode` finds, or its reason, as facts for JSON, and the squares."""
    _alarm(seconds + _GRACE)
    try:
        decoded = decode(content, transform)
    except UnreadablePictureError as error:
        return {"reason": str(error)}, b""
    finally:
        _alarm(0)
    facts = {name: value for name, value in vars(decoded).items() if name != "pixels"}
    return facts | {"shape": decoded.pixels.shape}, decoded.pixels.tobytes()


def send(stream: BinaryIO, *parts: bytes) -> None:
    """Write every part after its length, then flush."""
    for part in parts:
        stream.write(len(part).to_bytes(8, "little"))
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    """The next part. Raises EOFError where the sender broke off, or what came is no part."""
    header = stream.read(8)
    length = int.from_bytes(header, "little")
    if len(header) < 8 or length > _MAX_PART:
        raise EOFError
    part = stream.read(length)
    if len(part) < length:
        raise EOFError
    return part


def _set_limits() -> None:
    """Bound the memory, where the system can, and be the first to go where the machine has none left."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        taken = 0
        with suppress(OSError), open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def _alarm(seconds: float) -> None:
    """Be killed by the system in so many seconds (0: not), even inside a decoder that hangs after the parent's end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, min(seconds, 1e6))
