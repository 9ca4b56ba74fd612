"""`heun_step` against diffusers' HeunDiscreteScheduler and FlowMatchHeunDiscreteScheduler.

Their state between tables is y = x_t/a over sigma = b/a, the variable our step integrates in, and they take two calls a
step: every second state, and the landing, is one of ours.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.network import NetworkDenoiser
from calotype.process import Parameterization, Process, RectifiedFlow, VarianceExploding
from calotype.sampling import heun_step
from tests.references.reference import (
    CASES,
    PREDICTIONS,
    SCHEDULES,
    Reference,
    Tape,
    assert_same,
    network,
    our_path,
    start,
    their_path,
)

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

# Theirs knows no zero terminal SNR.
WITH_SIGNAL = [case for case in CASES if not case[0].endswith("zero")]


def ends_of_steps(path: list[Tensor]) -> list[Tensor]:
    """Their states without those between the two calls of a step."""
    return [*path[0::2], path[-1]]


def scaled(path: list[Tensor], process: Process, grid: Tensor) -> list[Tensor]:
    """y = x_t/a at every level."""
    return [x_t / float(process.signal_rate(t)) for x_t, t in zip(path, grid)]


def check_path(
    reference: Reference, schedule: str, parameterization: Parameterization, num_steps: int, **more: Any
) -> None:
    """Their whole path and ours over their sigmas; the network is told t - 1, which is their timestep."""
    process, settings = SCHEDULES[schedule]
    settings = {**settings, "prediction_type": PREDICTIONS[parameterization], **more}
    scheduler = reference.scheduler("HeunDiscreteScheduler", **settings)
    scheduler.set_timesteps(num_steps)
    sigmas = torch.cat([scheduler.sigmas[0::2], scheduler.sigmas[-1:]]).double()
    grid = process.t_from_log_snr(-torch.log(sigmas))
    if reference.precision == "double":
        torch.testing.assert_close(grid[:-1] - 1, scheduler.timesteps[0::2].double(), rtol=1e-9, atol=1e-9)
    denoiser, x_T = NetworkDenoiser(network, process, parameterization), start()
    theirs = their_path(scheduler, x_T / float(process.signal_rate(grid[0])))
    ours = our_path(denoiser, process, x_T, grid, heun_step)
    assert_same(scaled(ours, process, grid), ends_of_steps(theirs), reference.tolerance)


@pytest.mark.parametrize(("schedule", "parameterization"), WITH_SIGNAL)
def test_path(double: Reference, schedule: str, parameterization: Parameterization) -> None:
    check_path(double, schedule, parameterization, 7, timestep_spacing="leading")


# From the cosine table's last sigma, 2e4, a Heun step down to less than 10 loses half of the figures on either side.
@pytest.mark.parametrize("more", [{"timestep_spacing": "trailing"}, {"use_karras_sigmas": True}])
@pytest.mark.parametrize(("schedule", "parameterization"), [case for case in WITH_SIGNAL if case[0] != "cosine"])
def test_path_from_the_noisiest_level(
    double: Reference, schedule: str, parameterization: Parameterization, more: dict[str, Any]
) -> None:
    check_path(double, schedule, parameterization, 7, **more)


# In float32 their first sigma, .01, is off by 1e-4 of itself, and a Heun step divides by it: trailing spacing does not
# visit it. The cosine table is left out: its last 1 - beta, .001, is off by 3e-5 of itself.
@pytest.mark.parametrize(
    ("schedule", "parameterization"), [case for case in WITH_SIGNAL if case[0] in ("linear", "scaled-linear")]
)
def test_path_as_shipped(schedule: str, parameterization: Parameterization) -> None:
    check_path(Reference("shipped"), schedule, parameterization, 50, timestep_spacing="trailing")


def test_fractional_timesteps(double: Reference) -> None:
    """Their linspace falls between the entries, where they draw sigma as a line and we log_snr: fed their sigmas, and
    the network their timesteps.
    """
    process, settings = SCHEDULES["scaled-linear"]
    scheduler = double.scheduler("HeunDiscreteScheduler", **settings, prediction_type="v_prediction")
    scheduler.set_timesteps(8)
    sigmas = torch.cat([scheduler.sigmas[0::2], scheduler.sigmas[-1:]])
    grid = process.t_from_log_snr(-torch.log(sigmas))
    apart = (grid[1:-2] - 1 - scheduler.timesteps[2:-1:2]).abs()
    assert 1e-6 < float(apart.max()) < 0.1
    theirs = their_path(scheduler, start() / float(process.signal_rate(grid[0])))
    denoiser = NetworkDenoiser(Tape(scheduler.timesteps), process, "v")
    ours = our_path(denoiser, process, start(), grid, heun_step)
    assert_same(scaled(ours, process, grid), ends_of_steps(theirs), double.tolerance)


@pytest.mark.parametrize(
    ("parameterization", "prediction_type", "sign"),
    [("eps", "epsilon", 1), ("x0", "sample", 1), ("edm", "v_prediction", -1)],
)
def test_on_the_exploding_process(
    double: Reference, parameterization: Parameterization, prediction_type: str, sign: int
) -> None:
    """Their scheduler with EDM's sigmas and times put in place of its own: Karras et al. 2022, algorithm 1."""
    scheduler = double.scheduler("HeunDiscreteScheduler", prediction_type=prediction_type)
    karras = double.scheduler("EDMEulerScheduler", sigma_min=0.002, sigma_max=80.0)
    karras.set_timesteps(12)
    scheduler.set_timesteps(12)
    pairs = karras.sigmas[1:-1].repeat_interleave(2)
    scheduler.sigmas = torch.cat([karras.sigmas[:1], pairs, karras.sigmas[-1:]])
    scheduler.timesteps = torch.log(scheduler.sigmas[:-1]) / 4
    theirs = their_path(scheduler, start(80.0))
    process = VarianceExploding(0.002, 80.0)
    denoiser = NetworkDenoiser(lambda *inputs: sign * network(*inputs), process, parameterization)
    ours = our_path(denoiser, process, start(80.0), karras.sigmas, heun_step)
    assert_same(ours, ends_of_steps(theirs), double.tolerance)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_on_a_flow(reference: Reference, shift: float) -> None:
    """In t itself, fed their sigmas."""
    scheduler = reference.scheduler("FlowMatchHeunDiscreteScheduler", shift=shift)
    scheduler.set_timesteps(8 if reference.precision == "double" else 50)
    grid = torch.cat([scheduler.sigmas[0::2], scheduler.sigmas[-1:]]).double()
    theirs = their_path(scheduler, start())
    process = RectifiedFlow()
    ours = our_path(NetworkDenoiser(network, process, "flow"), process, start(), grid, heun_step)
    assert_same(ours, ends_of_steps(theirs), reference.tolerance)
