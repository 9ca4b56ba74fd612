"""Optimisers and the learning rate's curve."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from calotype.training.journal import Segment
from calotype.training.muon import Muon, orthogonalize
from calotype.training.optimizers import OptimizerConfig, build_optimizers, lr_factor, set_lr


def test_lr_warms_up_stays_and_ends_at_zero() -> None:
    config = OptimizerConfig(warmup=10, decay_share=0.4)
    segment = Segment(start=0, seconds=None, end=100)
    factors = [lr_factor(step, segment, config) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[30] == factors[60] == 1
    assert factors[80] == pytest.approx(0.5)
    assert factors[100] == 0
    later = Segment(start=100, seconds=None, end=200)
    assert lr_factor(100, later, config) == pytest.approx(0.1)
    assert lr_factor(180, later, config) == pytest.approx(0.5)


def test_lr_decays_along_a_cosine() -> None:
    config = OptimizerConfig(warmup=1, decay="cosine", decay_share=0.4)
    factors = [lr_factor(step, Segment(0, None, 100), config) for step in range(101)]
    assert factors[60] == 1
    assert factors[70] == pytest.approx(0.5 + math.sqrt(0.125))
    assert factors[80] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-12)


def test_lr_stays_where_no_decay_is_wanted() -> None:
    config = OptimizerConfig(warmup=4, decay="none")
    assert [lr_factor(step, Segment(0, None, 8), config) for step in (0, 3, 7)] == [0.25, 1, 1]


def test_lr_may_decay_from_the_first_step_on() -> None:
    config = OptimizerConfig(warmup=1, decay_share=1)
    assert [lr_factor(step, Segment(20, None, 30), config) for step in (20, 25, 29)] == pytest.approx([1, 0.5, 0.1])


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_lr_decays_from_any_step_that_was_chosen(decay: str) -> None:
    config = OptimizerConfig.parse({"warmup": 1, "decay": decay})
    chosen = Segment(0, None, 100, decay_from=90)
    assert [lr_factor(step, chosen, config) for step in (70, 90, 95, 100)] == pytest.approx([1, 1, 0.5, 0])
    at_once = Segment(0, None, 90, decay_from=90)  # asked to end where it stands
    assert lr_factor(89, at_once, config) == 1


def test_lr_before_the_decay_does_not_depend_on_the_length() -> None:
    config = OptimizerConfig()
    undecided, decided = Segment(0, 60.0, None), Segment(0, 60.0, 1000)
    assert all(lr_factor(s, undecided, config) == lr_factor(s, decided, config) for s in range(600))


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_orthogonalize_levels_the_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    turned = orthogonalize(matrices)
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.4
    assert values.max() < 1.4
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    likeness = (turned * (u @ v)).sum((1, 2)) / (turned.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert likeness.min() > 0.95


def test_muon_steps_are_as_long_whatever_the_gradients_scale() -> None:
    moves = []
    for scale in (1e-3, 1e3):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.zeros(4, 2, 3, 3))
        weight.grad = scale * torch.randn(4, 2, 3, 3)
        Muon([weight], lr=0.1).step()
        moves.append(weight.detach().clone())
    torch.testing.assert_close(moves[0], moves[1], rtol=1e-3, atol=1e-4)
    assert 0.05 < float(moves[0].norm()) < 0.3


def test_optimizers_share_all_parameters_between_them() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(3, 1))
    optimizers = build_optimizers(network, OptimizerConfig(name="muon", lr=0.001, muon_lr=0.02))
    held = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    set_lr(optimizers, 0.5)
    assert [g["lr"] for o in optimizers for g in o.param_groups] == [0.0005, 0.01]
