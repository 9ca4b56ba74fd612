"""`dpmpp_2m_step` and its SDE variant against diffusers' DPMSolverMultistepScheduler (order 2, midpoint).

Theirs turns to first order on the last step if that lands on sigma = 0, where a second-order one is undefined; so does
ours. Other last steps differ: see `test_stopping_above_zero`. Their sample passes through float32 in every step.
"""

import math
from typing import Any

import pytest
import torch

from calotype.network import NetworkDenoiser
from calotype.process import NoiseSchedule, Parameterization, RectifiedFlow, VariancePreserving
from calotype.sampling import ddim_step, dpmpp_2m_sde_step, dpmpp_2m_step
from tests.references.reference import (
    CASES,
    PREDICTIONS,
    SCHEDULES,
    Reference,
    Tape,
    assert_same,
    difference,
    fresh_noise,
    levels,
    network,
    our_path,
    start,
    their_path,
)

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

STEPS = {"dpmsolver++": dpmpp_2m_step, "sde-dpmsolver++": dpmpp_2m_sde_step}
WITH_SIGNAL = [case for case in CASES if not case[0].endswith("zero")]


def solver(reference: Reference, settings: dict[str, Any], parameterization: str, **more: Any) -> Any:
    """Their scheduler for what the network predicts."""
    settings = {**settings, "prediction_type": PREDICTIONS[parameterization], **more}
    return reference.scheduler("DPMSolverMultistepScheduler", **settings)


def check_path(
    reference: Reference,
    schedule: str,
    parameterization: Parameterization,
    algorithm: str,
    spacing: str,
    num_steps: int,
) -> None:
    """Their whole path and ours over their timesteps."""
    process, settings = SCHEDULES[schedule]
    more = {"algorithm_type": algorithm, "timestep_spacing": spacing}
    scheduler = solver(reference, settings, parameterization, **more)
    scheduler.set_timesteps(num_steps)
    noise = fresh_noise(num_steps) if algorithm.startswith("sde") else []
    theirs = their_path(scheduler, start(), noise=noise)
    denoiser = NetworkDenoiser(network, process, parameterization)
    ours = our_path(denoiser, process, start(), levels(scheduler.timesteps), STEPS[algorithm], noise)
    assert_same(ours, theirs, reference.tolerance)


@pytest.mark.parametrize(
    ("algorithm", "spacing", "num_steps"),
    [
        ("dpmsolver++", "linspace", 16),
        ("dpmsolver++", "trailing", 6),
        ("sde-dpmsolver++", "trailing", 10),
        ("sde-dpmsolver++", "leading", 5),
    ],
)
@pytest.mark.parametrize(("schedule", "parameterization"), WITH_SIGNAL)
def test_path(
    double: Reference, schedule: str, parameterization: Parameterization, algorithm: str, spacing: str, num_steps: int
) -> None:
    check_path(double, schedule, parameterization, algorithm, spacing, num_steps)


# The cosine table is left out: its last 1 - beta, .001, is off by 3e-5 of itself in float32.
@pytest.mark.parametrize("algorithm", STEPS)
@pytest.mark.parametrize(
    ("schedule", "parameterization"), [case for case in WITH_SIGNAL if case[0] in ("linear", "scaled-linear")]
)
def test_path_as_shipped(schedule: str, parameterization: Parameterization, algorithm: str) -> None:
    check_path(Reference("shipped"), schedule, parameterization, algorithm, "linspace", 50)


@pytest.mark.parametrize("algorithm", STEPS)
@pytest.mark.parametrize("parameterization", PREDICTIONS)
def test_next_to_zero_terminal_snr(double: Reference, parameterization: Parameterization, algorithm: str) -> None:
    """Theirs never starts without signal: alpha_bar_T is raised from 0 to 2^-24. So is ours here, for its own zero
    has no finite log_snr: the step after it is first order in ours, second order from log_snr = -8.3 in theirs.
    """
    zero, settings = SCHEDULES["linear-zero"]
    assert isinstance(zero, VariancePreserving)
    assert isinstance(zero.schedule, NoiseSchedule)
    table = zero.schedule.table.clone()
    table[-1] = math.log(2**-24 / (1 - 2**-24)) / 2
    process = VariancePreserving(NoiseSchedule(table, {}))
    scheduler = solver(double, settings, parameterization, algorithm_type=algorithm, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    noise = fresh_noise(10) if algorithm.startswith("sde") else []
    theirs = their_path(scheduler, start(), noise=noise)
    denoiser = NetworkDenoiser(network, process, parameterization)
    ours = our_path(denoiser, process, start(), levels(scheduler.timesteps), STEPS[algorithm], noise)
    assert_same(ours, theirs, double.tolerance)


@pytest.mark.parametrize("algorithm", STEPS)
@pytest.mark.parametrize("sigmas", ["use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas"])
@pytest.mark.parametrize("schedule", ["scaled-linear", "cosine"])
def test_levels_between_those_of_the_table(double: Reference, schedule: str, sigmas: str, algorithm: str) -> None:
    """Fed their sigmas. The network is told their timesteps, which they round: ours are the levels themselves."""
    process, settings = SCHEDULES[schedule]
    scheduler = solver(double, settings, "v", algorithm_type=algorithm, **{sigmas: True})
    scheduler.set_timesteps(12)
    grid = process.t_from_log_snr(-torch.log(scheduler.sigmas))
    assert grid[-1] == 0
    assert (grid[1:-2] != grid[1:-2].round()).all()
    noise = fresh_noise(12) if algorithm.startswith("sde") else []
    theirs = their_path(scheduler, start(), noise=noise)
    denoiser = NetworkDenoiser(Tape(scheduler.timesteps), process, "v")
    ours = our_path(denoiser, process, start(), grid, STEPS[algorithm], noise)
    assert_same(ours, theirs, double.tolerance)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("algorithm", STEPS)
def test_on_a_flow(reference: Reference, algorithm: str, shift: float) -> None:
    """Fed their sigmas, which are t; their timesteps are cut to whole numbers on the way to the network."""
    settings = {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction"}
    scheduler = reference.scheduler("DPMSolverMultistepScheduler", **settings, algorithm_type=algorithm)
    scheduler.set_timesteps(12)
    noise = fresh_noise(12) if algorithm.startswith("sde") else []
    theirs = their_path(scheduler, start(), noise=noise)
    process = RectifiedFlow()
    denoiser = NetworkDenoiser(Tape(scheduler.timesteps), process, "flow")
    ours = our_path(denoiser, process, start(), scheduler.sigmas.double(), STEPS[algorithm], noise)
    assert_same(ours, theirs, reference.tolerance)


@pytest.mark.parametrize(("num_steps", "lower_order_final"), [(20, True), (10, False), (10, True)])
def test_stopping_above_zero(double: Reference, num_steps: int, lower_order_final: bool) -> None:
    """With final_sigmas_type "sigma_min" the path stops at t = 1. Ours stays at second order there. Theirs does too,
    unless K < 15 and lower_order_final: then its last step is of first order, which is our `ddim_step`.
    """
    process, settings = SCHEDULES["linear"]
    more = {"final_sigmas_type": "sigma_min", "lower_order_final": lower_order_final, "timestep_spacing": "trailing"}
    scheduler = solver(double, settings, "eps", **more)
    scheduler.set_timesteps(num_steps)
    grid = levels(scheduler.timesteps)
    grid[-1] = 1
    theirs = their_path(scheduler, start())
    denoiser = NetworkDenoiser(network, process, "eps")
    ours = our_path(denoiser, process, start(), grid, dpmpp_2m_step)
    if num_steps < 15 and lower_order_final:
        assert difference(ours[-1], theirs[-1]) > 1e-3
        ours[-1], _ = ddim_step(denoiser, process, ours[-2], grid[-2], grid[-1])
    assert_same(ours, theirs, double.tolerance)
