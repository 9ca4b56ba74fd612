"""A thousand ranks on paper: torch's own pretended process group says of each which one it is, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from calotype.core import distributed
from calotype.core.random import batch_ids
from calotype.core.shards import cut
from calotype.training.parallel import local

WORLD = 1024
BILLION = 10**9


@contextmanager
def being(rank: int, world: int = WORLD) -> Iterator[None]:
    """As if this process were one of many."""
    torch.distributed.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_the_pretended_group_is_believed() -> None:
    with being(1023):
        assert (distributed.rank(), distributed.world_size()) == (1023, 1024)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


@pytest.mark.parametrize("step", [0, 4_882, 4_883, 1_000_000])  # an epoch ends within a batch after 4,882.8 of them
def test_every_global_batch_of_a_billion_is_shared_exactly(step: int) -> None:
    batch, samples = 200 * WORLD, BILLION
    whole = batch_ids(11, step, batch, samples)
    shares = []
    for rank in range(WORLD):
        with being(rank):
            shares.append(distributed.my_part(batch_ids(11, step, batch, samples) if rank % 256 == 0 else whole))
    assert {len(share) for share in shares} == {200}
    assert torch.equal(torch.cat(shares), whole)
    assert len(whole.unique()) == batch or step == 4_882  # but where two epochs meet, nobody twice


@pytest.mark.parametrize(("count", "size"), [(50_000, 64), (1024 * 64, 64), (65_537, 64), (5, 64), (1, 1), (1023, 1)])
def test_every_validation_set_is_shared_and_nobody_is_left_waiting(count: int, size: int) -> None:
    ids = torch.arange(count) * 7
    counted: list[Tensor] = []
    parts = set()
    for rank in range(WORLD):
        with being(rank):
            mine = list(distributed.even_parts(ids, size))
        parts.add(len(mine))
        assert all(0 < len(part) <= size and rows <= len(part) for part, rows in mine)
        counted += [part[:rows] for part, rows in mine]
    assert len(parts) == 1  # all wait for each other equally often
    assert torch.equal(torch.cat(counted).sort().values, ids)


@pytest.mark.parametrize("count", [0, 1, 1023 * 1024, 1024 * 1024 + 1, 3_000_000])
def test_every_picture_is_encoded_by_one_rank(count: int) -> None:
    units = list(cut(np.arange(count, dtype=np.int64), 1024))
    shares = []
    for rank in range(WORLD):
        with being(rank):
            shares.append(units[distributed.rank() :: distributed.world_size()])
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    done = [unit for share in shares for unit in share]
    assert np.array_equal(np.sort(np.concatenate([*done, np.zeros(0, np.int64)])), np.arange(count))


def test_a_spread_network_leaves_each_rank_little_more_than_its_share() -> None:
    """Rows are what FSDP2 deals out: of a weight with fewer rows than there are ranks, some get one and others none."""
    held = []
    for rank in (0, 7, 8, 1023):
        with being(rank):
            mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (WORLD,))
            network = nn.Sequential(nn.Conv2d(2048, 2048, 1, bias=False), nn.Conv2d(2048, 8, 1, bias=False))
            fully_shard(network, mesh=mesh)
            held.append([local(p).numel() for p in network.parameters()])
    assert held == [[2 * 2048, 2048], [2 * 2048, 2048], [2 * 2048, 0], [2 * 2048, 0]]
