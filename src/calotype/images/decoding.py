"""Pictures of a source decoded in order, on several cores, in processes of their own.

Started as `python -c`, not by `multiprocessing`, which would run a user's unguarded script again in every child.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from calotype.images.decode import Decoded, Transform, UnreadablePictureError
from calotype.images.decoder_pool import DecoderPool, decoder_command
from calotype.images.source import Picture

_MAX_PROCESSES = 4  # each may hold a picture of MAX_PIXELS
_WAITING_BYTES = 256 * 2**20  # of decoded squares that wait for their turn


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its squares, or the `reason` why there are none. `digest` is the sha256 of its bytes."""

    decoded: Decoded | None
    digest: str = ""
    bytes: int | None = None
    reason: str = ""


def decode_pictures(
    pictures: Iterable[Picture], transform: Transform, *, seconds: float = 30.0
) -> Generator[tuple[Picture, Outcome], None, None]:
    """Every picture with its outcome, in the given order, decoded a few ahead.

    One that cannot be read, kills its decoder or takes more than `seconds` has a reason instead of squares; whatever
    it is, the others go on. Close the generator to stop early.
    """
    processes = min(_usable_cores(), _MAX_PROCESSES)
    row = 3 * transform.size**2 * transform.crops
    ahead = max(processes, min(4 * processes, _WAITING_BYTES // row))
    waiting: deque[tuple[Picture, Future[Outcome]]] = deque()
    with (
        DecoderPool(decoder_command(transform, seconds), processes=processes, seconds=seconds) as pool,
        ThreadPoolExecutor(processes, thread_name_prefix="decode") as threads,
    ):
        try:
            for picture in pictures:
                waiting.append((picture, threads.submit(_outcome, picture, pool)))
                if len(waiting) >= ahead:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popleft()
                yield ready, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
            pool.stop()


def _outcome(picture: Picture, pool: DecoderPool) -> Outcome:
    content = None
    digest = ""
    try:
        content = picture.read()
        digest = sha256(content).hexdigest()
        return Outcome(pool.decode(content), digest, len(content))
    except (UnreadablePictureError, OSError) as error:
        return Outcome(None, digest, None if content is None else len(content), str(error))


def _usable_cores() -> int:
    """Cores this process may use (its affinity, where the system tells), not those the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
