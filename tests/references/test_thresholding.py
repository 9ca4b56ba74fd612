"""`dynamic_thresholding` and the static clip against diffusers' own, alone and inside whole paths.

Theirs is s = clamp(quantile, 1, sample_max_value), clamp to ±s, divide by s: ours with bound 1, if sample_max_value is
out of the way. Its default is 1, which makes s = 1 always: a static clip to ±1.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.types import Step
from calotype.network import NetworkDenoiser, clipped, dynamic_thresholding, thresholded
from calotype.process import Parameterization
from calotype.sampling import ddim_step, ddpm_step, dpmpp_2m_step, heun_step
from tests.references.reference import (
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

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

OPEN = {"thresholding": True, "sample_max_value": 1e9}
# By scheduler: our step, and what their step is told besides.
SAMPLERS: dict[str, tuple[Step, dict[str, Any]]] = {
    "DDPMScheduler": (ddpm_step, {}),
    # Theirs keeps the network's eps beside a tamed x0 unless told to find it anew from x0, which ours always does.
    "DDIMScheduler": (partial(ddim_step, eta=0.5), {"eta": 0.5, "use_clipped_model_output": True}),
    "DPMSolverMultistepScheduler": (dpmpp_2m_step, {}),
}


def loud(x_in: Tensor, time: Tensor, cond: Any = None) -> Tensor:
    """A network whose x0 overshoots [-1, 1] by far in some rows and by little in others."""
    return network(x_in, time) * torch.tensor([0.5, 1.2, 4.0], dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("ratio", [0.9, 0.95, 0.995, 1.0])
def test_function(reference: Reference, ratio: float) -> None:
    """Rows below the bound, about it and far above: only the first is left as it is."""
    x0 = start() * torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    scheduler = reference.scheduler("DDPMScheduler", **OPEN, dynamic_thresholding_ratio=ratio)
    theirs = scheduler._threshold_sample(x0)
    ours = dynamic_thresholding(x0, 100 * ratio, bound=1.0)
    for row in range(3):
        assert difference(ours[row], theirs[row]) <= 1e-14
    assert torch.equal(ours[0], x0[0])
    # With another bound it is the same on data measured in it.
    assert difference(dynamic_thresholding(x0 * 3.5, 100 * ratio, bound=3.5), 3.5 * theirs) <= 1e-14


def test_their_default_is_a_static_clip(double: Reference) -> None:
    x0 = 3 * start()
    scheduler = double.scheduler("DDPMScheduler", thresholding=True)
    theirs = scheduler._threshold_sample(x0)
    assert torch.equal(theirs, clipped(lambda x_t, t, cond: x_t, bound=1.0)(x0, torch.tensor(1), None))
    assert difference(dynamic_thresholding(x0, 99.5), theirs) > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("parameterization", PREDICTIONS)
def test_path(double: Reference, name: str, parameterization: Parameterization) -> None:
    process, settings = SCHEDULES["scaled-linear"]
    settings = {**settings, **OPEN, "timestep_spacing": "leading", "dynamic_thresholding_ratio": 0.97}
    scheduler = double.scheduler(name, **settings, prediction_type=PREDICTIONS[parameterization])
    scheduler.set_timesteps(8)
    step, options = SAMPLERS[name]
    options = {**options, "generator": torch.Generator().manual_seed(3)}
    theirs = their_path(scheduler, start(), predict=loud, **options)
    plain = NetworkDenoiser(loud, process, parameterization)
    grid, noise = levels(scheduler.timesteps), fresh_noise(8, seed=3)
    assert_same(our_path(thresholded(plain, 97.0), process, start(), grid, step, noise), theirs, double.tolerance)
    assert difference(our_path(plain, process, start(), grid, step, noise)[-1], theirs[-1]) > 0.1


@pytest.mark.parametrize("parameterization", PREDICTIONS)
def test_clipped_path(double: Reference, parameterization: Parameterization) -> None:
    process, settings = SCHEDULES["linear"]
    more = {"prediction_type": PREDICTIONS[parameterization], "clip_sample": True, "clip_sample_range": 0.8}
    scheduler = double.scheduler("DDPMScheduler", **settings, **more)
    scheduler.set_timesteps(8)
    theirs = their_path(scheduler, start(), predict=loud, generator=torch.Generator().manual_seed(3))
    denoiser = clipped(NetworkDenoiser(loud, process, parameterization), 0.8)
    ours = our_path(denoiser, process, start(), levels(scheduler.timesteps), ddpm_step, fresh_noise(8, seed=3))
    assert_same(ours, theirs, double.tolerance)


def test_both_passes_of_heun_are_clipped(double: Reference) -> None:
    process, settings = SCHEDULES["linear"]
    more = {"prediction_type": "sample", "clip_sample": True, "clip_sample_range": 0.8, "timestep_spacing": "leading"}
    scheduler = double.scheduler("HeunDiscreteScheduler", **settings, **more)
    scheduler.set_timesteps(8)
    grid = levels(scheduler.timesteps[0::2])
    theirs = their_path(scheduler, start() / float(process.signal_rate(grid[0])), predict=loud)
    denoiser = clipped(NetworkDenoiser(loud, process, "x0"), 0.8)
    ours = our_path(denoiser, process, start(), grid, heun_step)
    scaled = [x_t / float(process.signal_rate(t)) for x_t, t in zip(ours, grid)]
    assert_same(scaled, [*theirs[0::2], theirs[-1]], double.tolerance)
