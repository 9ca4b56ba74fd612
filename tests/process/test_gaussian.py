"""What distinguishes the families: identities of the rates, priors, and what the network is told."""

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving, check_prior
from tests.process.families import FAMILIES


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine", "linear-zero-terminal", "angle"])
def test_variance_is_preserved(name: str) -> None:
    process = FAMILIES[name]
    t = torch.linspace(0, process.t_max, 777, dtype=torch.float64)
    power = process.signal_rate(t) ** 2 + process.noise_rate(t) ** 2
    torch.testing.assert_close(power, torch.ones_like(t), rtol=1e-14, atol=0)


def test_angle_level_is_the_noise_rate() -> None:
    t = torch.tensor([0.0, 0.28, 0.6, 0.96], dtype=torch.float64)
    process = VariancePreserving.angle()
    torch.testing.assert_close(process.noise_rate(t), t, rtol=1e-12, atol=0)
    torch.testing.assert_close(process.signal_rate(t), torch.tensor([1, 0.96, 0.8, 0.28], dtype=torch.float64))
    assert process.t_max >= 0.995


def test_flow_is_straight_and_exploding_keeps_the_signal() -> None:
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert RectifiedFlow().signal_rate(t).tolist() == [1, 0.75, 0]
    assert RectifiedFlow().noise_rate(t).tolist() == [0, 0.25, 1]
    process = VarianceExploding(sigma_max=10)
    assert process.signal_rate(t * 10).tolist() == [1, 1, 1]
    assert process.noise_rate(t * 10).tolist() == [0, 2.5, 10]


def test_prior_is_standard_normal_but_for_exploding() -> None:
    noise = torch.randn(2, 4, 8, 8)
    assert torch.equal(VariancePreserving.linear().prior((2, 4, 8, 8), noise), noise)
    assert torch.equal(RectifiedFlow().prior((2, 4, 8, 8), noise), noise)
    assert torch.equal(VarianceExploding(sigma_max=50.0).prior((2, 4, 8, 8), noise), noise * 50)
    with pytest.raises(ValueError, match="shape"):
        RectifiedFlow().prior((1, 4, 8, 8), noise)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_forgets_the_signal(name: str) -> None:
    check_prior(FAMILIES[name])


def test_a_prior_that_is_not_reached_is_refused_with_both_numbers() -> None:
    process = VariancePreserving.linear(num_train_steps=100, beta_end=0.002)
    assert float(process.alpha_bar(torch.tensor(100))) == pytest.approx(0.900, abs=5e-4)
    with pytest.raises(UserError, match=r"0\.949.*t = 100.*at most 0\.1"):
        process.prior((1, 1), torch.randn(1, 1))
    with pytest.raises(UserError):
        check_prior(VarianceExploding(sigma_max=5.0))
    check_prior(VarianceExploding(sigma_max=12.0))


def test_what_the_network_is_told() -> None:
    assert VariancePreserving.linear().network_time(torch.tensor([1, 1000])).tolist() == [0, 999]
    assert RectifiedFlow().network_time(torch.tensor([0.5])).tolist() == [500]
    assert VariancePreserving.angle().network_time(torch.tensor([0.5])).tolist() == [500]
    assert float(VarianceExploding().network_time(torch.tensor(2.0))) == pytest.approx(0.17328679)


def test_equality_is_by_settings() -> None:
    assert VariancePreserving.linear() == VariancePreserving.linear()
    assert hash(VariancePreserving.linear()) == hash(VariancePreserving.linear())
    assert VariancePreserving.linear() != VariancePreserving.linear(beta_end=0.03)
    assert VariancePreserving.cosine() != RectifiedFlow()
    assert "beta_end=0.02" in repr(VariancePreserving.linear())
