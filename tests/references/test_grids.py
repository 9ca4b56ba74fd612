"""Which levels are visited: our grids against diffusers' timesteps (t = timestep + 1) and sigmas."""

from fractions import Fraction
from typing import Any

import pytest
import torch

from calotype.process import VarianceExploding
from calotype.sampling import timestep_grid
from tests.references.reference import SCHEDULES, Reference, levels

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")


def exact(spacing: str, i: int, num_steps: int) -> Fraction:
    """Level i before it is rounded, T = 1000."""
    if spacing == "trailing":
        return Fraction(1000 * (num_steps - i), num_steps)
    return 1000 - Fraction(999 * i, num_steps - 1)


@pytest.mark.parametrize(
    ("name", "kind", "spacing"),
    [("DDIMScheduler", "trailing", "trailing"), ("DDPMScheduler", "uniform", "linspace")],
)
def test_timesteps(double: Reference, name: str, kind: Any, spacing: str) -> None:
    """For every K from 2 to T, save where a level lies halfway between two whole ones: both of these are near.

    Not compared are K = 1, where their linspace starts at the clean end, and what their trailing spacing appends for
    K = 61, 103 ...: numpy's arange overshoots, and timestep -1 follows 0.
    """
    process, settings = SCHEDULES["linear"]
    scheduler = double.scheduler(name, **settings, timestep_spacing=spacing)
    halfway = 0
    for num_steps in range(2, 1001):
        scheduler.set_timesteps(num_steps)
        theirs = (scheduler.timesteps + 1).tolist()
        ours = timestep_grid(process, num_steps, kind).tolist()
        assert len(ours) == num_steps + 1
        for i in range(num_steps):
            if theirs[i] != ours[i]:
                assert abs(exact(spacing, i, num_steps) - int(ours[i])) == Fraction(1, 2)
                assert abs(theirs[i] - ours[i]) == 1
                halfway += 1
    assert 0 < halfway < 10_000


@pytest.mark.parametrize(
    ("kind", "sigmas"),
    [("karras", "use_karras_sigmas"), ("log_snr", "use_lu_lambdas"), ("log_snr", "use_exponential_sigmas")],
)
@pytest.mark.parametrize("num_steps", [2, 5, 20, 200])
@pytest.mark.parametrize("schedule", ["linear", "scaled-linear", "cosine", "short-linear"])
def test_sigmas_between_those_of_the_table(
    double: Reference, schedule: str, num_steps: int, kind: Any, sigmas: str
) -> None:
    process, settings = SCHEDULES[schedule]
    scheduler = double.scheduler("DPMSolverMultistepScheduler", **settings, **{sigmas: True})
    scheduler.set_timesteps(num_steps)
    ours = torch.exp(-process.log_snr(timestep_grid(process, num_steps, kind)))
    torch.testing.assert_close(ours, scheduler.sigmas, rtol=1e-9, atol=0)


@pytest.mark.parametrize("num_steps", [2, 18, 100])
@pytest.mark.parametrize(("kind", "schedule"), [(None, "karras"), ("log_snr", "exponential")])
def test_sigmas_of_the_exploding_process(double: Reference, kind: Any, schedule: str, num_steps: int) -> None:
    """Karras' are the default of both. The exponential ones are taken in single precision by theirs even here."""
    scheduler = double.scheduler("EDMEulerScheduler", sigma_min=0.01, sigma_max=50.0, sigma_schedule=schedule)
    scheduler.set_timesteps(num_steps)
    ours = timestep_grid(VarianceExploding(0.01, 50.0), num_steps, kind)
    tolerance = 1e-12 if schedule == "karras" else 1e-5
    torch.testing.assert_close(ours, scheduler.sigmas, rtol=tolerance, atol=0)


def test_levels_are_one_above_timesteps() -> None:
    """The convention of every comparison in this room."""
    assert levels(torch.tensor([999, 500, 0])).tolist() == [1000, 501, 1, 0]
    process, _ = SCHEDULES["linear"]
    assert process.network_time(torch.tensor([1000, 501, 1])).tolist() == [999, 500, 0]
