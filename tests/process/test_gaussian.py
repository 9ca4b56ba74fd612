"""What distinguishes the families: identities of the rates, priors, and what the network is told."""

import math

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from tests.process.families import FAMILIES, close, float64


def test_what_sets_the_families_apart() -> None:
    facts = {
        name: (p.t_min, p.t_max, p.num_train_steps, p.default_grid, p.default_density, p.prior_scale)
        for name, p in FAMILIES.items()
    }
    assert facts == {
        **dict.fromkeys(
            ("linear", "scaled-linear", "cosine", "linear-zero-terminal"),
            (1, 1000, 1000, "trailing", "uniform", 1),
        ),
        "short-table": (1, 20, 20, "trailing", "uniform", 1),
        "angle": (0.002, 0.999, None, "trailing", "uniform", 1),
        "flow": (0.001, 1, None, "trailing", "uniform", 1),
        "exploding": (0.002, 80, None, "karras", "log-normal", 80),
    }


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine", "linear-zero-terminal", "angle"])
def test_variance_is_preserved(name: str) -> None:
    process = FAMILIES[name]
    t = torch.linspace(0, process.t_max, 777, dtype=torch.float64)
    power = process.signal_rate(t) ** 2 + process.noise_rate(t) ** 2
    close(power, torch.ones_like(t), rtol=1e-14)
    assert isinstance(process, VariancePreserving)
    close(process.alpha_bar(t), process.signal_rate(t) ** 2, rtol=1e-14)


def test_angle_level_is_the_noise_rate() -> None:
    t, process = float64(0, 0.28, 0.6, 0.96), VariancePreserving.angle()
    close(process.noise_rate(t), t)
    close(process.signal_rate(t), float64(1, 0.96, 0.8, 0.28))
    close(process.log_snr(t), float64(math.inf, math.log(24 / 7), math.log(4 / 3), -math.log(24 / 7)))
    close(process.t_from_log_snr(process.log_snr(t)), t)


def test_flow_is_straight() -> None:
    t, process = float64(0, 0.25, 0.75, 1), RectifiedFlow()
    assert process.signal_rate(t).tolist() == [1, 0.75, 0.25, 0]
    assert process.noise_rate(t).tolist() == [0, 0.25, 0.75, 1]
    close(process.log_snr(t), float64(math.inf, math.log(3), -math.log(3), -math.inf))
    close(process.t_from_log_snr(process.log_snr(t)), t)


def test_exploding_keeps_the_signal() -> None:
    t, process = float64(0, 0.25, 2, 10), VarianceExploding(sigma_max=10)
    assert process.signal_rate(t).tolist() == [1, 1, 1, 1]
    assert process.noise_rate(t).tolist() == t.tolist()
    close(process.log_snr(t), float64(math.inf, math.log(4), -math.log(2), -math.log(10)))
    close(process.t_from_log_snr(process.log_snr(t)), t)


@pytest.mark.parametrize("limits", [(0, 80), (-1, 80), (2, 2), (3, 2)])
def test_exploding_refuses_an_empty_range(limits: tuple[float, float]) -> None:
    said = f"^sigma runs from {limits[0]} to {limits[1]}: it must satisfy 0 < min < max$"
    with pytest.raises(UserError, match=said):
        VarianceExploding(*limits)


def test_prior_is_standard_normal_but_for_exploding() -> None:
    noise = torch.randn(2, 4, 8, 8)
    assert torch.equal(VariancePreserving.linear().prior((2, 4, 8, 8), noise), noise)
    assert torch.equal(RectifiedFlow().prior((2, 4, 8, 8), noise), noise)
    assert torch.equal(VarianceExploding(sigma_max=50.0).prior((2, 4, 8, 8), noise), noise * 50)


@pytest.mark.parametrize("batch", [1, 3])
def test_prior_refuses_noise_of_another_shape(batch: int) -> None:
    said = rf"^noise has shape \(2, 4\), the prior was asked for \({batch}, 4\)$"
    with pytest.raises(ValueError, match=said):
        RectifiedFlow().prior((batch, 4), torch.zeros(2, 4))


def test_prior_is_refused_where_it_is_not_reached() -> None:
    with pytest.raises(UserError, match="starting from pure noise"):
        VariancePreserving.linear(num_train_steps=100).prior((1, 1), torch.zeros(1, 1))


def test_what_the_network_is_told() -> None:
    assert VariancePreserving.linear().network_time(torch.tensor([1, 1000])).tolist() == [0, 999]
    assert RectifiedFlow().network_time(torch.tensor([0.5])).tolist() == [500]
    assert VariancePreserving.angle().network_time(torch.tensor([0.5])).tolist() == [500]
    close(VarianceExploding().network_time(float64(2)), float64(math.log(2) / 4))


def test_only_exploding_scales_its_input() -> None:
    t = float64(0, 0.75)
    for name in ("linear", "angle", "flow"):
        assert FAMILIES[name].input_scale(t).tolist() == [1, 1]
    close(VarianceExploding().input_scale(t), float64(1, 0.8))


def test_a_process_owes_its_rates_and_its_config() -> None:
    owed = {"signal_rate", "noise_rate", "log_snr", "t_from_log_snr", "network_time", "config"}
    assert Process.__abstractmethods__ == owed


def test_equality_is_by_settings() -> None:
    linear = VariancePreserving.linear()
    assert linear == VariancePreserving.linear()
    assert hash(linear) == hash(VariancePreserving.linear())
    assert hash(linear) != hash(RectifiedFlow())
    assert linear != VariancePreserving.linear(beta_end=0.03)
    assert VariancePreserving.cosine() != RectifiedFlow()
    assert linear != "linear"
    settings = "num_train_steps=1000, beta_start=0.0001, beta_end=0.02, zero_terminal_snr=False"
    assert repr(linear) == f"VariancePreserving(schedule='linear', {settings})"
    assert repr(RectifiedFlow()) == "RectifiedFlow()"
    assert repr(VarianceExploding(1, 90)) == "VarianceExploding(sigma_min=1.0, sigma_max=90.0)"
