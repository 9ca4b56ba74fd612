"""The deterministic steps on the variance-exploding process against diffusers' EDMEulerScheduler.

Theirs has sigma_data = .5 by default; ours is 1, for latents are standardised.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.types import Step
from calotype.network import NetworkDenoiser
from calotype.process import VarianceExploding, add_noise, x0_from_prediction
from calotype.sampling import alpha_step, ddim_step, euler_step
from tests.references.reference import (
    Reference,
    assert_same,
    difference,
    fresh_noise,
    network,
    our_path,
    start,
    their_path,
)

SIGMAS = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 1.0}


@pytest.mark.parametrize("step", [euler_step, ddim_step, alpha_step])
@pytest.mark.parametrize("sigma_schedule", ["karras", "exponential"])
def test_path(reference: Reference, sigma_schedule: str, step: Step) -> None:
    """x0_hat = c_skip x_t + c_out F(c_in x_t, ln(sigma)/4), which is our "edm"."""
    process = VarianceExploding(0.002, 80.0)
    scheduler = reference.scheduler("EDMEulerScheduler", **SIGMAS, sigma_schedule=sigma_schedule)
    scheduler.set_timesteps(12 if reference.precision == "double" else 50)
    theirs = their_path(scheduler, start(80.0))
    denoiser = NetworkDenoiser(network, process, "edm")
    ours = our_path(denoiser, process, start(80.0), scheduler.sigmas.double(), step)
    assert_same(ours, theirs, reference.tolerance)


def test_v_prediction(reference: Reference) -> None:
    """Their v-prediction is the same with -F; our v is theirs times sqrt(1 + sigma^2)."""
    process = VarianceExploding(0.002, 80.0)
    scheduler = reference.scheduler("EDMEulerScheduler", **SIGMAS, prediction_type="v_prediction")
    scheduler.set_timesteps(18)
    theirs = their_path(scheduler, start(80.0))
    negative = NetworkDenoiser(lambda *inputs: -network(*inputs), process, "edm")
    sigmas = scheduler.sigmas.double()
    assert_same(our_path(negative, process, start(80.0), sigmas, euler_step), theirs, reference.tolerance)
    plain = NetworkDenoiser(network, process, "v")

    def scaled(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        v_hat = plain.predict(x_t, t) / process.input_scale(t).reshape(-1, 1, 1, 1)
        return x0_from_prediction("v", process, x_t, t, v_hat)

    assert_same(our_path(scaled, process, start(80.0), sigmas, euler_step), theirs, reference.tolerance)


def test_preconditioning(double: Reference) -> None:
    """c_in, c_noise, c_skip and c_out at their sigmas."""
    process = VarianceExploding(0.002, 80.0)
    scheduler = double.scheduler("EDMEulerScheduler", **SIGMAS)
    scheduler.set_timesteps(18)
    sigma = scheduler.sigmas[:-1]
    x_t = torch.linspace(-200, 300, 18, dtype=torch.float64).reshape(-1, 1, 1, 1)
    seen = {}

    def recorder(x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        seen.update(x_in=x_in, time=time)
        return torch.cos(x_in)

    x0_hat = NetworkDenoiser(recorder, process, "edm")(x_t, sigma)
    rows = sigma.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(seen["x_in"], scheduler.precondition_inputs(x_t, rows), rtol=1e-12, atol=0)
    torch.testing.assert_close(seen["time"], scheduler.timesteps.to(torch.float32), rtol=1e-6, atol=1e-7)
    theirs = scheduler.precondition_outputs(x_t, torch.cos(seen["x_in"]), rows)
    torch.testing.assert_close(x0_hat, theirs, rtol=1e-10, atol=1e-12)


def test_forward_process(double: Reference) -> None:
    scheduler = double.scheduler("EDMEulerScheduler", **SIGMAS)
    scheduler.set_timesteps(18)
    x0, eps = start(), fresh_noise(1)[0]
    theirs = scheduler.add_noise(x0, eps, scheduler.timesteps[[0, 7, 17]])
    ours = add_noise(VarianceExploding(0.002, 80.0), x0, scheduler.sigmas[[0, 7, 17]], eps)
    assert difference(ours, theirs) <= 1e-14
