"""eps, x0, v and flow are four ways to say the same thing."""

from typing import get_args

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import (
    Parameterization,
    Process,
    RectifiedFlow,
    VariancePreserving,
    add_noise,
    check_parameterization,
    eps_from_x0,
    target,
    x0_from_prediction,
)
from tests.process.families import FAMILIES

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
NAMES: tuple[Parameterization, ...] = get_args(Parameterization)


@ALL
@pytest.mark.parametrize("parameterization", NAMES)
def test_the_target_leads_back_to_x0_and_eps(process: Process, parameterization: Parameterization) -> None:
    t = torch.tensor([0.001, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64) * process.t_max
    x0, eps = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    x_t = add_noise(process, x0, t, eps)
    x0_hat = x0_from_prediction(parameterization, process, x_t, t, target(parameterization, process, x0, eps, t))
    torch.testing.assert_close(x0_hat, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_from_x0(process, x_t, t, x0_hat), eps, rtol=1e-6, atol=1e-6)


def test_targets_by_hand() -> None:
    process, t = VariancePreserving.angle(), torch.tensor([0.6])
    x0, eps = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    values = {name: float(target(name, process, x0, eps, t)) for name in NAMES}
    assert values == {"eps": 10, "x0": 1, "v": pytest.approx(0.8 * 10 - 0.6 * 1), "flow": 9}


def test_x0_by_hand() -> None:
    process, t, x_t = VariancePreserving.angle(), torch.tensor([0.6]), torch.tensor([[2.0]])
    values = {name: float(x0_from_prediction(name, process, x_t, t, torch.tensor([[0.5]]))) for name in NAMES}
    assert values["eps"] == pytest.approx((2 - 0.6 * 0.5) / 0.8)
    assert values["x0"] == 0.5
    assert values["v"] == pytest.approx(0.8 * 2 - 0.6 * 0.5)
    assert values["flow"] == pytest.approx((2 - 0.6 * 0.5) / 1.4)


def test_flow_target_is_the_velocity_of_the_path() -> None:
    process, x0, eps = RectifiedFlow(), torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    later, earlier = torch.tensor(0.6 + 1e-4), torch.tensor(0.6 - 1e-4)
    slope = (add_noise(process, x0, later, eps) - add_noise(process, x0, earlier, eps)) / float(later - earlier)
    torch.testing.assert_close(slope, target("flow", process, x0, eps, torch.tensor([0.6])), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parameterization", ["x0", "v", "flow"])
def test_pure_noise_still_gives_x0(parameterization: Parameterization) -> None:
    process, t = RectifiedFlow(), torch.tensor([1.0])
    x0, eps = torch.randn(1, 4), torch.randn(1, 4)
    prediction = target(parameterization, process, x0, eps, t)
    torch.testing.assert_close(x0_from_prediction(parameterization, process, eps, t, prediction), x0)


def test_undefined_cases_are_refused() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="signal_rate is 0"):
        x0_from_prediction("eps", RectifiedFlow(), x, torch.tensor([1.0]), x)
    with pytest.raises(ValueError, match="noise_rate is 0"):
        eps_from_x0(RectifiedFlow(), x, torch.tensor([0.0]), x)
    with pytest.raises(UserError, match="t = 1000"):
        check_parameterization("eps", VariancePreserving.cosine(zero_terminal_snr=True))
    check_parameterization("v", VariancePreserving.cosine(zero_terminal_snr=True))


def test_an_unknown_name_is_refused() -> None:
    x, t = torch.zeros(1, 1), torch.tensor([1])
    with pytest.raises(UserError, match="did you mean 'flow'"):
        check_parameterization("flwo", VariancePreserving.linear())
    with pytest.raises(UserError):
        target("velocity", VariancePreserving.linear(), x, x, t)  # type: ignore[arg-type]
    with pytest.raises(UserError):
        x0_from_prediction("velocity", VariancePreserving.linear(), x, t, x)  # type: ignore[arg-type]
