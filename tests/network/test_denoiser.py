"""The wrapper: a network that predicts the truth is an exact denoiser, in every family and parameterisation."""

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
    # EDM's scaling of v is the wrapper's: the network itself says v * c_in.
    scale = process.input_scale(t).reshape(-1, 1, 1, 1) if parameterization == "v" else 1.0
    denoiser = NetworkDenoiser(lambda x, time, cond: wanted * scale, process, parameterization)
    x_t = add_noise(process, x0, t, eps)
    torch.testing.assert_close(denoiser.predict(x_t, t), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser(x_t, t), x0, rtol=1e-8, atol=1e-8)


class Recorder:
    """A network that keeps what it was fed."""

    def __call__(self, x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        self.x_in, self.time, self.cond = x_in, time, cond
        return torch.zeros_like(x_in)


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
        assert network.cond == "c"
    scale = 1 / 5**0.5 if family == "exploding" else 1
    torch.testing.assert_close(network.x_in, x_t * scale)


def test_edm_preconditioning() -> None:
    """v on a variance-exploding process is D = c_skip x + c_out F(c_in x), sigma_data = 1 (the sign of F is free)."""
    process, sigma = VarianceExploding(), torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64)
    x_t = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(lambda x, time, cond: torch.sin(x), process, "v")
    s = sigma.reshape(-1, 1, 1, 1)
    c_in = (1 + s**2) ** -0.5
    expected = x_t / (1 + s**2) - s * c_in * torch.sin(c_in * x_t)
    torch.testing.assert_close(denoiser(x_t, sigma), expected)


def test_the_wrapper_owns_the_dtype() -> None:
    network = nn.Conv2d(4, 4, 1).to(torch.bfloat16)
    denoiser = NetworkDenoiser(lambda x, time, cond: network(x), VariancePreserving.linear(), "v")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = network

        def forward(self, x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
            assert x_in.dtype == torch.bfloat16
            assert time.dtype == torch.float32
            return self.conv(x_in)

    denoiser = NetworkDenoiser(Net(), VariancePreserving.linear(), "v")
    assert denoiser(torch.randn(2, 4, 2, 2), torch.tensor([3, 900])).dtype == torch.float32


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


def test_the_trained_range_is_the_process_unless_said() -> None:
    assert NetworkDenoiser(Recorder(), VariancePreserving.linear()).t_max == 1000
    assert NetworkDenoiser(Recorder(), VariancePreserving.angle(), "x0", t_max=0.84).t_max == 0.84
