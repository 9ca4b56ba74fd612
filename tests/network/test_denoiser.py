"""The wrapper: a network that predicts the truth is an exact denoiser, in every family and parameterisation."""

import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.network import NetworkDenoiser
from calotype.process import Parameterization, RectifiedFlow, VarianceExploding, VariancePreserving, add_noise, target
from tests.process.families import FAMILIES

CASES = [
    (family, parameterization)
    for family in FAMILIES
    for parameterization in get_args(Parameterization)
    if not (parameterization == "eps" and family in ("flow", "linear-zero-terminal"))
]


@pytest.mark.parametrize(("family", "parameterization"), CASES)
def test_a_truthful_network_gives_x0(family: str, parameterization: Parameterization) -> None:
    process = FAMILIES[family]
    t = torch.tensor([0.01, 0.4, 0.95], dtype=torch.float64) * process.t_max
    x0, eps = torch.randn(3, 4, 2, 2, dtype=torch.float64), torch.randn(3, 4, 2, 2, dtype=torch.float64)
    wanted = target(parameterization, process, x0, eps, t)
    denoiser = NetworkDenoiser(lambda x, time, cond: wanted, process, parameterization)
    x_t = add_noise(process, x0, t, eps)
    assert torch.equal(denoiser.predict(x_t, t), wanted)
    torch.testing.assert_close(denoiser(x_t, t), x0, rtol=1e-8, atol=1e-8)


class Recorder:
    """A network that keeps what it was fed."""

    def __init__(self, answer: Callable[[Tensor], Tensor] = torch.zeros_like) -> None:
        self.answer = answer

    def __call__(self, x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        self.x_in, self.time, self.cond = x_in, time, cond
        return self.answer(x_in)


@pytest.mark.parametrize(
    ("family", "t", "time"),
    [("linear", 1, 0), ("linear", 1000, 999), ("flow", 0.25, 250), ("angle", 0.25, 250), ("exploding", 2.0, 0.1732868)],
)
def test_what_the_network_is_fed(family: str, t: float, time: float) -> None:
    network = Recorder()
    denoiser = NetworkDenoiser(network, FAMILIES[family], "x0")
    x_t = torch.randn(3, 4, 2, 2)
    for level in (torch.tensor(t), torch.full((3,), t)):
        denoiser(x_t, level, "c")
        torch.testing.assert_close(network.time, torch.full((3,), time, dtype=torch.float32))
        assert network.time.dtype == torch.float32
        assert network.cond == "c"
    scale = 1 / 5**0.5 if family == "exploding" else 1
    torch.testing.assert_close(network.x_in, x_t * scale)


@pytest.mark.parametrize("family", ["exploding", "linear", "flow"])
def test_edm_preconditioning(family: str) -> None:
    """D = c_skip y + c_out F with y = x_t/a, sigma = b/a and sigma_data = 1 (Karras et al. 2022, table 1)."""
    process = FAMILIES[family]
    t = torch.tensor([0.01, 0.2, 0.9], dtype=torch.float64) * process.t_max
    x_t = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    network = Recorder(lambda x_in: torch.sin(x_in) + 0.5)
    found = NetworkDenoiser(network, process, "edm")(x_t, t)
    a, b = (rate.reshape(-1, 1, 1, 1) for rate in (process.signal_rate(t), process.noise_rate(t)))
    sigma, y = b / a, x_t / a
    c_skip, c_out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1).sqrt()
    torch.testing.assert_close(found, c_skip * y + c_out * (torch.sin(network.x_in) + 0.5), rtol=1e-9, atol=1e-9)
    if family == "exploding":
        torch.testing.assert_close(network.x_in, x_t / (1 + sigma**2).sqrt())


def test_v_is_the_networks_output_as_it_is() -> None:
    process, sigma = VarianceExploding(), torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64)
    x_t = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(lambda x, time, cond: torch.sin(x), process)
    s = sigma.reshape(-1, 1, 1, 1)
    prediction = torch.sin(x_t * (1 + s**2) ** -0.5)
    torch.testing.assert_close(denoiser.predict(x_t, sigma), prediction)
    torch.testing.assert_close(denoiser(x_t, sigma), (x_t - s * prediction) / (1 + s**2))


class Mixed(nn.Module):
    """A network whose first parameter is a whole number, and whose weights are bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
        self.conv = nn.Conv2d(4, 4, 1).to(torch.bfloat16)

    def forward(self, x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        assert x_in.dtype == torch.bfloat16
        assert time.dtype == torch.float32
        return self.conv(x_in)


class NoWeights(nn.Module):
    """A network without weights takes what comes."""

    def forward(self, x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        assert x_in.dtype == torch.float64
        return x_in


def test_the_wrapper_owns_the_dtype() -> None:
    process, x_t, t = VariancePreserving.linear(), torch.randn(2, 4, 2, 2), torch.tensor([3, 900])
    denoiser = NetworkDenoiser(Mixed(), process)
    for dtype in (torch.float32, torch.float64):
        assert denoiser.predict(x_t.to(dtype), t).dtype == dtype
        assert denoiser(x_t.to(dtype), t).dtype == dtype
    for network in (NoWeights(), NoWeights().forward):
        assert NetworkDenoiser(network, process).predict(x_t.double(), t).dtype == torch.float64


def test_gradients_pass_through() -> None:
    network = nn.Conv2d(4, 4, 1)
    denoiser = NetworkDenoiser(lambda x, time, cond: network(x), VariancePreserving.linear(), "v")
    denoiser.predict(torch.randn(2, 4, 2, 2), torch.tensor([3, 900])).square().mean().backward()
    assert network.weight.grad is not None
    assert float(network.weight.grad.abs().min()) > 0


def test_refusals() -> None:
    with pytest.raises(UserError, match="predict v or x0"):
        NetworkDenoiser(Recorder(), RectifiedFlow(), "eps")
    with pytest.raises(UserError, match="unknown parameterization"):
        NetworkDenoiser(Recorder(), RectifiedFlow(), "velocity")  # type: ignore[arg-type]


def test_an_answer_of_another_shape_is_refused() -> None:
    x_t, t = torch.randn(2, 4, 3, 3), torch.tensor(0.5)
    for answer, shape in (
        (lambda x: x.repeat(1, 2, 1, 1), "(2, 8, 3, 3)"),  # a network that also learned a variance
        (lambda x: x[:, :1], "(2, 1, 3, 3)"),  # these two would broadcast in silence
        (lambda x: x[:1], "(1, 4, 3, 3)"),
    ):
        message = f"the network answered {shape} to an x_t of (2, 4, 3, 3)"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            NetworkDenoiser(Recorder(answer), RectifiedFlow(), "x0")(x_t, t)


def test_levels_that_do_not_belong_to_the_rows_are_refused() -> None:
    x_t, denoiser = torch.randn(3, 4, 2, 2), NetworkDenoiser(Recorder(), RectifiedFlow())
    for t in (torch.full((2,), 0.5), torch.full((1,), 0.5), torch.full((3, 1), 0.5)):
        message = f"t has shape {tuple(t.shape)}: give one level, or one for each of the 3 rows of x_t"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            denoiser.predict(x_t, t)
    assert denoiser.predict(x_t, 0.5).shape == x_t.shape  # type: ignore[arg-type]


def test_the_trained_range_is_the_process_unless_said() -> None:
    assert NetworkDenoiser(Recorder(), VariancePreserving.linear()).t_max == 1000
    assert NetworkDenoiser(Recorder(), VariancePreserving.angle(), "x0", t_max=0.84).t_max == 0.84
    assert NetworkDenoiser(Recorder(), VariancePreserving.linear()).parameterization == "v"
    with pytest.raises(TypeError, match="positional"):
        NetworkDenoiser(Recorder(), VariancePreserving.linear(), "v", 0.84)  # type: ignore[misc]


def test_x_t_may_live_elsewhere_than_t() -> None:
    network = Recorder()
    denoiser = NetworkDenoiser(network, VariancePreserving.linear(), "v")
    assert denoiser(torch.ones(2, 4, 2, 2, device="meta"), torch.tensor([3, 900])).is_meta
    assert network.time.is_meta
