"""The deterministic steps on the rectified flow against diffusers' FlowMatchEulerDiscreteScheduler."""

import numpy as np
import pytest
import torch

from calotype.core.types import Step
from calotype.network import NetworkDenoiser
from calotype.process import RectifiedFlow, add_noise
from calotype.sampling import alpha_step, ddim_step, euler_step, timestep_grid
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


@pytest.mark.parametrize("step", [euler_step, ddim_step, alpha_step])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_path(reference: Reference, shift: float, step: Step) -> None:
    """Fed their sigmas, which are t; the network is told 1000 t by both."""
    scheduler = reference.scheduler("FlowMatchEulerDiscreteScheduler", shift=shift)
    scheduler.set_timesteps(8 if reference.precision == "double" else 50)
    theirs = their_path(scheduler, start())
    process = RectifiedFlow()
    denoiser = NetworkDenoiser(network, process, "flow")
    ours = our_path(denoiser, process, start(), scheduler.sigmas.double(), step)
    assert_same(ours, theirs, reference.tolerance)


@pytest.mark.parametrize("shift", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("num_steps", [1, 8, 30])
def test_own_grid(reference: Reference, num_steps: int, shift: float) -> None:
    """Our grid and their sigmas from the levels t = 1 - i/K, which the pipelines of SD3 and Flux hand them."""
    scheduler = reference.scheduler("FlowMatchEulerDiscreteScheduler", shift=shift)
    scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1 / num_steps, num_steps)))
    theirs = their_path(scheduler, start())
    process = RectifiedFlow()
    grid = timestep_grid(process, num_steps, "trailing", shift=shift)
    torch.testing.assert_close(grid, scheduler.sigmas.double(), rtol=0, atol=reference.tolerance / 100)
    ours = our_path(NetworkDenoiser(network, process, "flow"), process, start(), grid, euler_step)
    assert_same(ours, theirs, reference.tolerance)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [2, 8, 30])
def test_uniform_grid(double: Reference, num_steps: int, shift: float) -> None:
    """Levels evenly from 1 to .001, shifted. A scheduler made with its shift applies it twice to the lower end, once
    in its table and once more to the levels between its ends; `set_shift` on one made without applies it once.
    """
    grid = timestep_grid(RectifiedFlow(), num_steps, "uniform", shift=shift)
    once = double.scheduler("FlowMatchEulerDiscreteScheduler")
    once.set_shift(shift)
    once.set_timesteps(num_steps)
    torch.testing.assert_close(grid, once.sigmas, rtol=1e-12, atol=0)
    twice = double.scheduler("FlowMatchEulerDiscreteScheduler", shift=shift)
    twice.set_timesteps(num_steps)
    low = float(grid[-2])
    assert float(twice.sigmas[-2]) == pytest.approx(shift * low / (1 + (shift - 1) * low), rel=1e-12)


def test_forward_process(double: Reference) -> None:
    scheduler = double.scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0)
    scheduler.set_timesteps(10)
    x0, eps = start(), fresh_noise(1)[0]
    theirs = scheduler.scale_noise(x0, scheduler.timesteps[[0, 4, 9]], eps)
    ours = add_noise(RectifiedFlow(), x0, scheduler.sigmas[[0, 4, 9]], eps)
    assert difference(ours, theirs) <= 1e-14
