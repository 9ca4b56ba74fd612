"""A process alone, or on a cluster that sets WORLD_SIZE for its own purposes, is the first of one."""

import pytest
import torch

from calotype.core import distributed


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "4"}, {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "a"}])
def test_alone_it_leads_and_waits_for_nobody(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with distributed.joined(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        distributed.barrier()
    assert distributed.leads()


def test_of_several_the_first_one_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    for rank, leads in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert distributed.leads() is leads
