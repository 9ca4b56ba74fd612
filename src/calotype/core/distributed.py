"""Where this process stands among those that torchrun started; alone, it is the first of one.

Every rank runs the same program; what must happen once (a file, a line for the user) happens on rank 0, and what
depends on a clock or a disk is decided there and shared. Only tensors and JSON travel: torch's own way to send Python
objects unpickles what arrives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from calotype.core.errors import UserError

PATIENCE = timedelta(days=30)  # the others wait while the first one prepares the data
T = TypeVar("T")


class LostProcessError(UserError):
    """Another process of the group is gone, and nothing can be done together any more.

    What torch has under way may wait for it for ever, also while this process ends: leave by `os._exit`.
    """


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if _initialised() else 0


def world_size() -> int:
    """How many processes work together."""
    return distributed.get_world_size() if _initialised() else 1


def leads() -> bool:
    """Whether this process is the one that speaks and writes files, also before and after it works in a group."""
    return not _is_one_of_several() or os.environ["RANK"] == "0"


def barrier() -> None:
    """Wait until every process has come here. UserError if one of them never will."""
    total(torch.zeros(1))


def total(values: Tensor) -> Tensor:
    """The sum over all processes, in place, on the device where `values` are. UserError if a process is gone."""
    if _initialised():
        with told_if_lost():
            distributed.all_reduce(values)
    return values


def share(value: T) -> T:
    """What rank 0 has, given to every process: anything that JSON can hold. The others' value is not looked at."""
    if not _initialised():
        return value
    content = json.dumps(value).encode() if rank() == 0 else b""
    length = total(torch.tensor([len(content)]))
    sent = torch.zeros(int(length), dtype=torch.uint8)
    if rank() == 0:
        sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with told_if_lost():
        distributed.broadcast(sent, 0)
    received: T = json.loads(sent.numpy().tobytes())
    return received


def leader_first(work: Callable[[], T]) -> T:
    """What `work` gives: rank 0 does it, and then, when it has left its files, everyone else."""
    if rank() > 0:
        barrier()
        return work()
    result = work()
    barrier()
    return result


def my_part(ids: Tensor) -> Tensor:
    """This process's consecutive share of ids (b,); UserError where the processes do not divide them evenly."""
    if len(ids) % world_size():
        fitting = ", ".join(str(n) for n in range(1, len(ids) + 1) if len(ids) % n == 0)
        raise UserError(
            f"{world_size()} processes cannot share a batch of {len(ids)} evenly", f"start one of {fitting} processes"
        )
    return ids.reshape(world_size(), -1)[rank()]


def even_parts(ids: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """This process's parts of ids (n,), each with how many of its rows count.

    Every process gets as many parts as the others, so that each may wait for the others within one; to come out even, a
    part may hold one row that does not count. Alone it is `ids.split(size)`.
    """
    for chunk in ids.split(size * world_size()):
        mine = chunk[rank() * size : (rank() + 1) * size]
        yield (mine, len(mine)) if len(mine) else (chunk[:1], 0)


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Work together with the other processes of torchrun, if it started this one; gives this process's own device."""
    if not _is_one_of_several() or _initialised():
        yield device
        return
    backend = "gloo"
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"  # who waits for long waits on the CPU: nccl would keep the GPUs busy with that
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        with told_if_lost():  # parts of a spread network travel in many places
            yield device
    finally:
        # gloo's thread may still be handing back the last tensor, for which it wants Python's lock; taken apart by a
        # thread that holds the lock and waits for it, both would wait for ever (one in fifty, where a process is lost).
        time.sleep(0.1)
        distributed.destroy_process_group()


@contextmanager
def told_if_lost() -> Iterator[None]:
    """A collective that fails because another process is gone, as one line."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not _is_loss(error):
            raise
        raise LostProcessError("another process of this run has stopped", "its own message says why") from error


_LOSSES = ("connection closed by peer", "connection reset", "broken pipe", "socket closed", "nccl", "gloo", "timed out")


def _is_loss(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or any(words in str(error).lower() for words in _LOSSES)


def _is_one_of_several() -> bool:
    """Whether a launcher started this process among others; a cluster may set WORLD_SIZE alone for its own purposes."""
    return {"RANK", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _initialised() -> bool:
    return distributed.is_available() and distributed.is_initialized()
