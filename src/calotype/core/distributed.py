"""Where this process stands among those that torchrun started; alone, it is the first of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from calotype.core.errors import UserError

PATIENCE = timedelta(days=30)  # the others wait while the first one trains a VAE


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if _initialised() else 0


def world_size() -> int:
    """How many processes work together."""
    return distributed.get_world_size() if _initialised() else 1


def leads() -> bool:
    """Whether this process is the one that speaks and writes reports, also before and after it works in a group."""
    return not _is_one_of_several() or os.environ["RANK"] == "0"


def barrier() -> None:
    """Wait until every process has come here. UserError if one of them never will."""
    if not _initialised():
        return
    try:
        distributed.barrier()
    except RuntimeError as error:
        raise UserError("another process of this run has stopped", "its own message says why") from error


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Work together with the other processes of torchrun, if it started this one; gives this process's own device."""
    if not _is_one_of_several() or _initialised():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # They only ever wait for each other, for hours at times: nccl would keep their GPUs busy with that.
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _is_one_of_several() -> bool:
    """Whether a launcher started this process among others; a cluster may set WORLD_SIZE alone for its own purposes."""
    return {"RANK", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _initialised() -> bool:
    return distributed.is_available() and distributed.is_initialized()
