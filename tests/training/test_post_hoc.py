"""Averages made after training, against averages tracked during it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn, optim

from calotype.core.errors import UserError
from calotype.core.progress import Silent
from calotype.training.ema import PowerAverages
from calotype.training.post_hoc import TIME, PostHocConfig, exponent, reconstruct, save_snapshot, solve

CONFIG = PostHocConfig(base=100)
STEPS = 1310  # neither a multiple of the distance between snapshots nor of the one between updates
WIDTHS = (0.05, 0.06, 0.075, 0.09, 0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Tensor], nn.Module]:
    """A noisy regression: its snapshots, averages of five widths tracked directly, and the network in the end."""
    folder = tmp_path_factory.mktemp("stage")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 4))
    network.get_parameter("0.bias").requires_grad_(False)  # what is not trained is part of an average too
    optimizer = optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    kept = PowerAverages(network, CONFIG)
    direct = PowerAverages(network, CONFIG.model_copy(update={"widths": WIDTHS}))
    for step in range(STEPS):
        inputs = torch.randn(16, 8)
        optimizer.zero_grad()
        (network(inputs) - inputs[:, :4].sin() - torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        kept.update(network, step)
        direct.update(network, step)
        if CONFIG.due(step + 1) or step + 1 == STEPS:
            save_snapshot(folder, step + 1, kept.tensors(), CONFIG)
    return folder, direct.tensors(), network


@pytest.mark.parametrize("width", WIDTHS)
def test_any_width_between_is_what_tracking_it_would_have_given(
    trained: tuple[Path, Mapping[str, Tensor], nn.Module], width: float
) -> None:
    folder, direct, network = trained
    made = reconstruct(folder, STEPS, width)
    assert made.keys() == dict(network.named_parameters()).keys()
    error = size = moved = 0.0
    for name, live in network.named_parameters():
        wanted = direct[f"{width:g}/{name}"]
        error += float((made[name] - wanted).square().sum())
        size += float(wanted.square().sum())
        moved += float((live.detach() - wanted).square().sum())
    assert (error / size) ** 0.5 < 1e-3  # half precision alone makes 2e-4
    assert (error / moved) ** 0.5 < 0.01  # of what averaging does at all
    torch.testing.assert_close(made["0.bias"], network.get_parameter("0.bias").detach(), rtol=1e-3, atol=1e-6)


def test_exponents_of_the_paper() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)
    for width in (0.01, 0.05, 0.1, 0.25):
        power = exponent(width)
        assert (power + 1) ** 0.5 / ((power + 2) * (power + 3) ** 0.5) == pytest.approx(width)


def test_weights_minimise_the_distance_of_profiles() -> None:
    """Against least squares over the profiles themselves, drawn on a fine grid."""
    fine = (np.arange(200_000) + 0.5) / 200_000

    def profile(time: float, width: float) -> np.ndarray:
        power = exponent(width)
        return np.where(fine <= time, (power + 1) * fine**power / time ** (power + 1), 0)

    times, widths = [400, 400, 700, 1000, 1000], [0.05, 0.1, 0.1, 0.05, 0.1]
    basis = np.stack([profile(t / 1000, w) for t, w in zip(times, widths, strict=True)], axis=1)
    wanted = profile(0.9, 0.08)
    free = basis[:, :-1] - basis[:, -1:]  # the last weight is 1 less the others
    others = np.linalg.lstsq(free, wanted - basis[:, -1], rcond=None)[0]
    weights, error = solve(times, widths, 900, 0.08)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, [*others, 1 - others.sum()], atol=1e-3)
    assert error == pytest.approx(np.linalg.norm(basis @ weights - wanted) / np.linalg.norm(wanted), rel=1e-3)


def test_a_width_that_was_kept_is_given_back() -> None:
    weights, error = solve([500, 1000, 1000, 1000], [0.1, 0.05, 0.05, 0.1], 1000, 0.05)  # one instant written twice
    np.testing.assert_allclose(weights, [0, 0.5, 0.5, 0], atol=1e-4)
    assert error < 1e-3


def _averages(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    values = {f"{width}/weight": torch.randn(5, generator=generator) for width in ("0.05", "0.1")}
    return {**values, TIME: torch.tensor(step)}


def _train(folder: Path, start: int, end: int, config: PostHocConfig) -> None:
    for step in range(start + 1, end + 1):
        if config.due(step) or step == end:
            save_snapshot(folder, step, _averages(step), config)


def _there(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "averages").iterdir())


def test_snapshots_are_bounded_and_evenly_spaced(tmp_path: Path) -> None:
    config = PostHocConfig(base=10, keep=4)
    for start, end, there in (
        (0, 37, [10, 20, 30, 37]),
        (37, 41, [10, 20, 30, 40, 41]),
        (41, 50, [20, 40, 50]),
        (50, 95, [20, 40, 60, 80, 95]),
        (95, 101, [40, 80, 101]),
    ):
        _train(tmp_path, start, end, config)
        assert _there(tmp_path) == there


def test_a_replay_ends_with_the_same_bytes(tmp_path: Path) -> None:
    config = PostHocConfig(base=10, keep=4)
    _train(tmp_path / "whole", 0, 95, config)
    _train(tmp_path / "killed", 0, 83, config)
    (tmp_path / "killed" / "averages" / ".step-00000040.123.tmp").mkdir()  # the kill was in mid-write
    _train(tmp_path / "killed", 22, 95, config)
    files = [sorted(p for p in (tmp_path / run).rglob("*") if p.is_file()) for run in ("whole", "killed")]
    assert _there(tmp_path / "whole") == _there(tmp_path / "killed")
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_training_that_ends_nearer_than_it_was_leaves_no_later_snapshot(tmp_path: Path) -> None:
    config = PostHocConfig(base=10, keep=4)
    _train(tmp_path, 0, 40, config)
    _train(tmp_path, 22, 25, config)  # stopped before a checkpoint, then shortened
    assert _there(tmp_path) == [10, 20, 25]


class Listening(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, message: str) -> None:
        self.heard.append(message)


def test_a_damaged_snapshot_is_named_and_left_out(tmp_path: Path) -> None:
    config = PostHocConfig(base=10, keep=4)
    _train(tmp_path, 0, 40, config)
    damaged = tmp_path / "averages" / "step-00000030" / "averages.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    reporter = Listening()
    made = reconstruct(tmp_path, 40, 0.1, reporter)
    torch.testing.assert_close(made["weight"], _averages(40)["0.1/weight"], rtol=1e-3, atol=1e-3)
    assert torch.equal(made["weight"], reconstruct(tmp_path, None, 0.1)["weight"])  # the newest
    assert len(reporter.heard) == 1
    assert "step-00000030 is damaged" in reporter.heard[0]


@pytest.mark.parametrize(("step", "width"), [(40, 0.005), (400, 0.1), (3, 0.1)])
def test_what_the_snapshots_do_not_allow_is_refused(tmp_path: Path, step: int, width: float) -> None:
    _train(tmp_path, 0, 40, PostHocConfig(base=10, keep=4))
    with pytest.raises(UserError, match=f"width {width:g} after {step} steps.*after 10, 20, 30, 40 steps can be"):
        reconstruct(tmp_path, step, width)


@pytest.mark.parametrize("width", [0.0, -0.1, float("nan")])
def test_what_is_no_width_is_refused(tmp_path: Path, width: float) -> None:
    _train(tmp_path, 0, 10, PostHocConfig(base=10, keep=4))
    with pytest.raises(UserError, match="relative width cannot be"):
        reconstruct(tmp_path, None, width)


def test_without_snapshots_there_is_nothing_to_make(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no whole snapshots"):
        reconstruct(tmp_path, 10, 0.1)
    save_snapshot(tmp_path, 2, {**_averages(2), TIME: torch.tensor(0)}, PostHocConfig())  # before the first update
    with pytest.raises(UserError, match="no whole snapshots"):
        reconstruct(tmp_path, 2, 0.1)


def test_what_half_precision_cannot_hold_is_kept_in_full(tmp_path: Path) -> None:
    large = {"0.1/weight": torch.tensor([1e6, 3.0]), "0.1/bias": torch.tensor([2.0]), TIME: torch.tensor(8)}
    save_snapshot(tmp_path, 8, large, PostHocConfig())
    made = reconstruct(tmp_path, 8, 0.1)
    assert made["weight"].tolist() == [1e6, 3.0]
    assert made["bias"].tolist() == [2.0]


@pytest.mark.parametrize("widths", [(), (0.0,), (0.3,), (0.05, -0.1)])
def test_widths_that_no_profile_has_are_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        PostHocConfig(widths=widths)
