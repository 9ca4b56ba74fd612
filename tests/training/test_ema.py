"""Averages of weights, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from calotype.core.errors import CorruptFileError
from calotype.training.ema import EMA, PowerAverages
from calotype.training.post_hoc import PostHocConfig


def test_ema_by_hand_and_halflife_in_samples() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=8)
    nn.init.ones_(network.weight)
    ema.update(network, step=0, batch_size=4)
    assert float(ema.network.get_parameter("weight")) == pytest.approx(1 - 1 / 10)
    late = EMA(nn.Linear(1, 1, bias=False), halflife=8)
    nn.init.zeros_(late.network.get_parameter("weight"))
    for step in range(1000, 1002):  # two batches of four are one halflife
        late.update(network, step=step, batch_size=4)
    assert float(late.network.get_parameter("weight")) == pytest.approx(0.5)


def test_ema_follows_buffers() -> None:
    network = nn.BatchNorm1d(2)
    ema = EMA(network, halflife=10)
    network.running_mean = torch.tensor([3.0, 4.0])
    ema.update(network, 0, 1)
    assert torch.equal(ema.network.get_buffer("running_mean"), network.running_mean)


def _profiles(steps: int, config: PostHocConfig) -> dict[str, np.ndarray]:
    """The share that the weights after each step have in each average: a network that is a one at one step only."""
    network = nn.Linear(steps + 1, 1, bias=False)
    averages = PowerAverages(network, config)
    with torch.no_grad():
        for step in range(steps):
            network.weight.zero_()[0, step + 1] = 1
            averages.update(network, step)
    return {key[:-7]: t[0].double().numpy() for key, t in averages.tensors().items() if key.endswith("/weight")}


def test_power_averages_by_hand() -> None:
    profiles = _profiles(43, PostHocConfig(widths=(0.1, 0.25), every=4))
    for width, power in (("0.1", 6.937204), ("0.25", 0.719824)):
        cells = np.arange(11) ** (power + 1) / 10 ** (power + 1)
        np.testing.assert_allclose(profiles[width][4:41:4], np.diff(cells), rtol=1e-4)
        assert profiles[width].sum() == pytest.approx(1)
        assert (profiles[width] > 1e-12).sum() == 10  # neither the start nor a step between updates


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_the_relative_width_is_the_deviation_of_the_profile(width: float) -> None:
    profile = _profiles(2000, PostHocConfig(widths=(width,), every=1))[f"{width:g}"]
    times = np.arange(2001) / 2000
    mean = profile @ times
    assert np.sqrt(profile @ (times - mean) ** 2) == pytest.approx(width, rel=2e-3)


def test_power_averages_continue_exactly_where_they_were_saved() -> None:
    torch.manual_seed(0)
    steps = [nn.Linear(3, 2) for _ in range(20)]
    config = PostHocConfig(every=2)
    whole = PowerAverages(steps[0], config)
    for step, network in enumerate(steps):
        whole.update(network, step)
        if step == 10:  # between two updates
            saved = {name: tensor.clone() for name, tensor in whole.tensors().items()}
    resumed = PowerAverages(steps[3], config)
    resumed.load(saved)
    for step in range(11, 20):
        resumed.update(steps[step], step)
    assert whole.tensors().keys() == resumed.tensors().keys()
    assert all(torch.equal(tensor, resumed.tensors()[name]) for name, tensor in whole.tensors().items())
    with pytest.raises(CorruptFileError, match="other widths"):
        PowerAverages(steps[0], PostHocConfig(widths=(0.1, 0.2))).load(saved)
    with pytest.raises(CorruptFileError, match="another network"):
        PowerAverages(nn.Linear(4, 2), config).load(saved)
