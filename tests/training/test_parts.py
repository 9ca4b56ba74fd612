"""The parts of training, each against its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from calotype.core.errors import UserError
from calotype.training.augment import AugmentConfig, augment
from calotype.training.ema import EMA
from calotype.training.journal import Budget, Journal, Segment
from calotype.training.metrics import Metrics, last_measures
from calotype.training.muon import Muon, orthogonalize
from calotype.training.optimizers import OptimizerConfig, build_optimizers, lr_factor, set_lr
from calotype.training.pace import Pace


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


def test_lr_before_the_decay_does_not_depend_on_the_length() -> None:
    config = OptimizerConfig()
    undecided, decided = Segment(0, 60.0, None), Segment(0, 60.0, 1000)
    assert all(lr_factor(s, undecided, config) == lr_factor(s, decided, config) for s in range(600))


def test_ema_by_hand_and_halflife_in_samples() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=8)
    nn.init.ones_(network.weight)
    ema.update(network, step=0, batch_size=4)
    assert float(ema.network.weight) == pytest.approx(1 - 1 / 10)
    late = EMA(nn.Linear(1, 1, bias=False), halflife=8)
    nn.init.zeros_(late.network.weight)
    for step in range(1000, 1002):  # two batches of four are one halflife
        late.update(network, step=step, batch_size=4)
    assert float(late.network.weight) == pytest.approx(0.5)


def test_ema_follows_buffers() -> None:
    network = nn.BatchNorm1d(2)
    ema = EMA(network, halflife=10)
    network.running_mean = torch.tensor([3.0, 4.0])
    ema.update(network, 0, 1)
    assert torch.equal(ema.network.running_mean, network.running_mean)


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


def test_augment_is_a_function_of_seed_step_and_sample() -> None:
    torch.manual_seed(0)
    images, ids = torch.rand(8, 3, 16, 16), torch.arange(8)
    config = AugmentConfig(flip=True, shift=2, permute=0.5)
    whole = augment(images, config, seed=1, step=5, ids=ids)
    torch.testing.assert_close(augment(images[3:5], config, 1, 5, ids[3:5]), whole[3:5])
    assert not torch.equal(augment(images, config, 1, 6, ids), whole)
    assert whole.shape == images.shape
    still = AugmentConfig(flip=False, shift=0, permute=0)
    assert torch.equal(augment(images, still, 1, 5, ids), images)


def test_augment_moves_and_permutes_but_invents_nothing() -> None:
    images = torch.rand(64, 3, 6, 6)
    permuted = augment(images, AugmentConfig(flip=False, shift=0, permute=1.0), 0, 0, torch.arange(64))
    torch.testing.assert_close(permuted.sort(dim=1).values, images.sort(dim=1).values)
    assert (permuted != images).flatten(1).any(1).float().mean() > 0.6
    flipped = augment(images, AugmentConfig(flip=True, shift=0, permute=0), 0, 0, torch.arange(64))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0.2 < float(same.float().mean()) < 0.8


def test_journal_requests_continue_grow_or_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(minutes=10))
    journal.request(Budget(minutes=10))
    journal.add("segment", stage="vae", start=0, seconds=60.0)
    assert journal.segments("vae") == [Segment(0, 60.0, None)]
    journal.add("decided", stage="vae", end=400)
    with pytest.raises(UserError, match="already given --minutes 10"):
        journal.request(Budget(minutes=5))
    with pytest.raises(UserError, match="not --steps 9"):
        journal.request(Budget(steps=9))
    journal.request(Budget(minutes=12.5))
    again = Journal(tmp_path / "journal.jsonl")
    assert again.requests() == [Budget(minutes=10), Budget(minutes=12.5)]
    assert again.segments("vae") == [Segment(0, 60.0, 400)]


def test_metrics_forget_what_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, "vae")
    for step in (1, 2, 3, 4):
        metrics.add({"loss": float(step)})
        if step % 2 == 0:
            metrics.flush(step, lr=0.1)
    Metrics(path, "denoiser").write(9, held_out_error=0.5)
    with open(path, "a") as file:
        file.write('{"stage": "vae", "st')  # a kill in mid-write
    again = Metrics(path, "vae")
    again.rewind(3, {"sums": {"loss": 3.0}, "counts": {"loss": 1}})
    again.add({"loss": 4.0})
    assert again.flush(4, lr=0.1) == {"loss": 3.5}
    assert last_measures(path) == {"held_out_error": 0.5}
    assert path.read_text().count("\n") == 3


def test_a_term_that_joins_late_is_averaged_over_its_own_steps(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", "vae")
    for values in ({"loss": 1.0}, {"loss": 2.0, "adversarial": 8.0}, {"loss": 3.0, "adversarial": 6.0}):
        metrics.add(values)
    assert metrics.flush(3) == {"loss": 2.0, "adversarial": 7.0}
    assert metrics.means() == {}


def test_pace_tells_once_when_half_the_speed_is_gone() -> None:
    pace = Pace(0, 0.0)
    assert pace.slowed_to(100, 10.0) is None
    assert pace.slowed_to(101, 15.0) is None
    assert pace.slowed_to(160, 21.0) is None
    assert pace.slowed_to(190, 31.0) == pytest.approx(0.3)
    assert pace.slowed_to(200, 41.0) is None
