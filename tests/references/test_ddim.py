"""`ddim_step` against diffusers' DDIMScheduler; the alpha-sampler's and the Euler step against its eta 0."""

from functools import partial

import pytest

from calotype.core.types import Step
from calotype.network import NetworkDenoiser
from calotype.process import Parameterization
from calotype.sampling import alpha_step, ddim_step, euler_step
from tests.references.reference import (
    CASES,
    PREDICTIONS,
    SCHEDULES,
    Reference,
    assert_same,
    difference,
    fresh_noise,
    levels,
    network,
    our_path,
    start,
    their_path,
)


def check_path(
    reference: Reference,
    schedule: str,
    parameterization: Parameterization,
    spacing: str,
    num_steps: int,
    *,
    eta: float = 0.0,
    step: Step | None = None,
) -> None:
    """Their whole path and ours over their timesteps."""
    process, settings = SCHEDULES[schedule]
    settings = {**settings, "prediction_type": PREDICTIONS[parameterization], "timestep_spacing": spacing}
    scheduler = reference.scheduler("DDIMScheduler", **settings)
    scheduler.set_timesteps(num_steps)
    noise = fresh_noise(num_steps) if eta > 0 else []
    theirs = their_path(scheduler, start(), noise=noise, eta=eta)
    denoiser = NetworkDenoiser(network, process, parameterization)
    grid = levels(scheduler.timesteps)
    step = partial(ddim_step, eta=eta) if step is None else step
    assert_same(our_path(denoiser, process, start(), grid, step, noise), theirs, reference.tolerance)


# Their step goes from timestep to timestep - T // K, whatever is visited next. Leading spacing visits just these
# levels, trailing only where K divides T; for the others see the test of single steps.
@pytest.mark.parametrize(
    ("eta", "spacing", "num_steps"), [(0.0, "trailing", 10), (1.0, "leading", 7), (0.4, "trailing", 5)]
)
@pytest.mark.parametrize(("schedule", "parameterization"), CASES)
def test_path(
    double: Reference, schedule: str, parameterization: Parameterization, eta: float, spacing: str, num_steps: int
) -> None:
    check_path(double, schedule, parameterization, spacing, num_steps, eta=eta)


# The cosine table is left out: its last 1 - beta, .001, is off by 3e-5 of itself in float32. So is eta = 1 from a
# level without signal (DDPM has it): they take the root of 1 - alpha_bar_s - sigma^2, there a rounding residue.
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("schedule", "parameterization"), [c for c in CASES if c[0] in ("linear", "scaled-linear")])
def test_path_as_shipped(schedule: str, parameterization: Parameterization, eta: float) -> None:
    check_path(Reference("shipped"), schedule, parameterization, "trailing", 50, eta=eta)


@pytest.mark.parametrize("step", [alpha_step, euler_step])
@pytest.mark.parametrize(("schedule", "parameterization"), [("scaled-linear", "eps"), ("linear-zero", "v")])
def test_other_names_of_the_deterministic_step(
    double: Reference, schedule: str, parameterization: Parameterization, step: Step
) -> None:
    check_path(double, schedule, parameterization, "trailing", 5, step=step)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_single_steps_where_they_do_not_go_where_they_look_next(double: Reference, eta: float) -> None:
    """With K = 7 they visit 999, 856, 713 ..., yet each step leads 142 down: 857, 714 ... as far as x is concerned."""
    process, settings = SCHEDULES["linear"]
    scheduler = double.scheduler("DDIMScheduler", **settings, timestep_spacing="trailing")
    scheduler.set_timesteps(7)
    assert scheduler.timesteps.tolist() == [999, 856, 713, 570, 428, 285, 142]
    denoiser, x_t, noise = NetworkDenoiser(network, process, "eps"), start(), fresh_noise(1)[0]
    for timestep in scheduler.timesteps:
        prediction = network(x_t, timestep.expand(3))
        theirs = scheduler.step(prediction, timestep, x_t, eta=eta, variance_noise=noise if eta else None)
        reached = timestep - 142 + 1
        ours, _ = ddim_step(denoiser, process, x_t, timestep + 1, reached, noise=noise, eta=eta)
        assert difference(ours, theirs.prev_sample) <= double.tolerance
        assert difference(denoiser(x_t, timestep + 1), theirs.pred_original_sample) <= double.tolerance


def test_a_path_that_stops_at_the_least_noisy_level(double: Reference) -> None:
    """Without set_alpha_to_one their last step leads to timestep 0, our t = 1."""
    process, settings = SCHEDULES["linear"]
    scheduler = double.scheduler("DDIMScheduler", **settings, timestep_spacing="trailing", set_alpha_to_one=False)
    scheduler.set_timesteps(10)
    grid = levels(scheduler.timesteps)
    grid[-1] = 1
    noise = fresh_noise(10)
    theirs = their_path(scheduler, start(), noise=noise, eta=1.0)
    denoiser = NetworkDenoiser(network, process, "eps")
    ours = our_path(denoiser, process, start(), grid, partial(ddim_step, eta=1.0), noise)
    assert_same(ours, theirs, double.tolerance)
