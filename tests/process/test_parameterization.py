"""eps, x0, v, flow and edm are five ways to say the same thing."""

import re
from typing import get_args

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import (
    Parameterization,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    add_noise,
    check_parameterization,
    eps_from_x0,
    target,
    x0_from_prediction,
)
from tests.process.families import FAMILIES, close, float64, read

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
NAMES: tuple[Parameterization, ...] = get_args(Parameterization)
EXPLODING = VarianceExploding(sigma_max=30)


def test_targets_by_hand() -> None:
    process, t = VariancePreserving.angle(), torch.tensor([0.6])
    x0, eps = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    values = {name: float(target(name, process, x0, eps, t)) for name in NAMES}
    v = pytest.approx(0.8 * 10 - 0.6 * 1, rel=1e-6)
    assert values == {"eps": 10, "x0": 1, "v": v, "flow": 9, "edm": pytest.approx(-7.4, rel=1e-6)}


def test_targets_where_the_variance_is_not_preserved() -> None:
    x0, eps = float64(2)[None], float64(5)[None]
    values = {name: float(target(name, EXPLODING, x0, eps, float64(0.75))) for name in NAMES}
    edm = pytest.approx((0.75 * 2 - 5) / 1.25)
    assert values == {"eps": 5, "x0": 2, "v": 5 - 0.75 * 2, "flow": 3, "edm": edm}


def test_x0_by_hand() -> None:
    process, t, x_t = VariancePreserving.angle(), torch.tensor([0.6]), torch.tensor([[2.0]])
    values = {name: float(x0_from_prediction(name, process, x_t, t, torch.tensor([[0.5]]))) for name in NAMES}
    assert values["eps"] == pytest.approx((2 - 0.6 * 0.5) / 0.8)
    assert values["x0"] == 0.5
    assert values["v"] == pytest.approx(0.8 * 2 - 0.6 * 0.5)
    assert values["flow"] == pytest.approx((2 - 0.6 * 0.5) / 1.4)
    assert values["edm"] == pytest.approx(0.8 * 2 + 0.6 * 0.5)


def test_edm_is_the_preconditioning_of_karras_et_al() -> None:
    """Table 1 with sigma_data = 1: c_skip = 1/(1 + sigma^2), c_out = sigma/sqrt(1 + sigma^2)."""
    sigma = float64(0.1, 0.75, 2, 30)[:, None]
    x_t, prediction = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    wanted = x_t / (1 + sigma**2) + sigma / (1 + sigma**2).sqrt() * prediction
    close(x0_from_prediction("edm", EXPLODING, x_t, sigma[:, 0], prediction), wanted, rtol=1e-10, atol=1e-12)


@ALL
@pytest.mark.parametrize("parameterization", NAMES)
def test_the_target_leads_back_to_x0_and_eps(process: Process, parameterization: Parameterization) -> None:
    t = float64(0.001, 0.2, 0.5, 0.8, 0.99) * process.t_max
    x0, eps = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    x_t = add_noise(process, x0, t, eps)
    x0_hat = x0_from_prediction(parameterization, process, x_t, t, target(parameterization, process, x0, eps, t))
    close(x0_hat, x0, rtol=1e-9, atol=1e-9)
    close(eps_from_x0(process, x_t, t, x0_hat), eps, rtol=1e-6, atol=1e-6)


@ALL
def test_the_edm_target_has_unit_variance_and_is_turned_v(process: Process) -> None:
    t = float64(0.01, 0.5, 0.99) * process.t_max
    a, b = process.signal_rate(t), process.noise_rate(t)
    of_x0, of_eps = (
        target("edm", process, float64(1, 1, 1), float64(0, 0, 0), t),
        target("edm", process, float64(0, 0, 0), float64(1, 1, 1), t),
    )
    close(of_x0**2 + of_eps**2, float64(1, 1, 1))
    v = target("v", process, float64(1, 1, 1), float64(2, 2, 2), t)
    close(of_x0 + 2 * of_eps, -v / (a**2 + b**2).sqrt(), atol=1e-12)


def test_flow_target_is_the_velocity_of_the_path() -> None:
    process, x0, eps = RectifiedFlow(), torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    later, earlier = float64(0.6 + 1e-4), float64(0.6 - 1e-4)
    slope = (add_noise(process, x0, later, eps) - add_noise(process, x0, earlier, eps)) / (later - earlier)
    close(slope, target("flow", process, x0, eps, float64(0.6)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parameterization", ["x0", "v", "flow", "edm"])
@pytest.mark.parametrize("name", ["flow", "linear-zero-terminal"])
def test_pure_noise_still_gives_x0(name: str, parameterization: Parameterization) -> None:
    process = FAMILIES[name]
    t, x0, eps = torch.tensor([process.t_max]), torch.randn(1, 4), torch.randn(1, 4)
    prediction = target(parameterization, process, x0, eps, t)
    close(x0_from_prediction(parameterization, process, eps, t, prediction), x0, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parameterization", ["eps", "v", "flow", "edm"])
def test_at_t_0_x_t_is_x0_whatever_the_network_says(parameterization: Parameterization) -> None:
    for process in (VariancePreserving.linear(), RectifiedFlow(), EXPLODING):
        x_t = torch.randn(2, 4)
        x0_hat = x0_from_prediction(read(parameterization), process, x_t, torch.tensor([0, 0]), torch.randn(2, 4))
        assert torch.equal(x0_hat, x_t)


def test_an_x0_prediction_is_x0_to_the_bit() -> None:
    prediction = torch.randn(3, 4)
    for t in (0, 1, 700):
        x0_hat = x0_from_prediction(
            read("x0"), VariancePreserving.linear(), prediction + 1, torch.tensor(t), prediction
        )
        assert torch.equal(x0_hat, prediction)


def test_rates_are_cast_last() -> None:
    """Half precision in and out, but (a + b) is formed in float64: 2049/2048 is no half-precision number."""
    x_t, prediction = torch.tensor([[1.0]]).half(), torch.tensor([[0.0]]).half()
    x0_hat = x0_from_prediction("v", VarianceExploding(), x_t, float64(2**-7), prediction)
    assert x0_hat.dtype == torch.float16
    assert float(x0_hat) == pytest.approx(1 / (1 + 2**-14), abs=5e-4)


@pytest.mark.parametrize("t", [[1.0], [0.5, 1.0]])
def test_x0_from_eps_is_refused_without_signal(t: list[float]) -> None:
    x = torch.zeros(len(t), 1)
    with pytest.raises(ValueError, match=r"^x0 is undefined from eps where signal_rate is 0$"):
        x0_from_prediction(read("eps"), RectifiedFlow(), x, torch.tensor(t), x)


@pytest.mark.parametrize("t", [[0.0], [0.5, 0.0]])
def test_eps_is_refused_without_noise(t: list[float]) -> None:
    x = torch.zeros(len(t), 1)
    with pytest.raises(ValueError, match=r"^eps is undefined where noise_rate is 0$"):
        eps_from_x0(RectifiedFlow(), x, torch.tensor(t), x)


def test_eps_is_refused_with_zero_terminal_snr() -> None:
    said = "eps-prediction cannot give x0 at t = 1000, where signal_rate is 0: predict v or x0"
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        check_parameterization(read("eps"), VariancePreserving.cosine(zero_terminal_snr=True))
    for name in set(NAMES) - {"eps"}:
        check_parameterization(name, VariancePreserving.cosine(zero_terminal_snr=True))
    for process in (VariancePreserving.linear(), VariancePreserving.angle(), VarianceExploding()):
        check_parameterization("eps", process)


def test_an_unknown_name_is_refused() -> None:
    x, t, process = torch.zeros(1, 1), torch.tensor([1]), VariancePreserving.linear()
    with pytest.raises(UserError, match=r"^unknown parameterization 'flwo': did you mean 'flow'\?$"):
        check_parameterization("flwo", process)
    with pytest.raises(UserError, match="unknown parameterization 'velocity': choose from edm, eps, flow, v, x0"):
        target("velocity", process, x, x, t)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown parameterization 'x'"):
        x0_from_prediction("x", process, x, t, x)  # type: ignore[arg-type]
