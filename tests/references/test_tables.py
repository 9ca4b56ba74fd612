"""Schedules, the forward process and v against diffusers', each side from its own formulas."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.process import VariancePreserving, add_noise, posterior, target
from tests.references.reference import SCHEDULES, Reference, difference, fresh_noise, start

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

WITH_SIGNAL = [schedule for schedule in SCHEDULES if not schedule.endswith("zero")]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_bar(double: Reference, schedule: str) -> None:
    """Every entry, and what is left to 1 at the clean end; alpha_bar itself to the last figure at the noisy end."""
    process, settings = SCHEDULES[schedule]
    assert isinstance(process, VariancePreserving)
    theirs = double.scheduler("DDPMScheduler", **settings).alphas_cumprod
    t = torch.arange(1, len(theirs) + 1)
    torch.testing.assert_close(process.signal_rate(t) ** 2, theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(process.alpha_bar(t), theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(process.noise_rate(t) ** 2, 1 - theirs, rtol=1e-10, atol=0)
    assert (float(theirs[-1]) == 0) == schedule.endswith("zero")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_bar_as_shipped(schedule: str) -> None:
    process, settings = SCHEDULES[schedule]
    theirs = Reference("shipped").scheduler("DDPMScheduler", **settings).alphas_cumprod
    t = torch.arange(1, len(theirs) + 1)
    assert difference(process.signal_rate(t) ** 2, theirs.double()) <= 1e-5


@pytest.mark.parametrize("schedule", WITH_SIGNAL)
def test_log_snr(double: Reference, schedule: str) -> None:
    """DPM-Solver's lambda and Heun's sigma; and the way back, at entries and between them."""
    process, settings = SCHEDULES[schedule]
    solver = double.scheduler("DPMSolverMultistepScheduler", **settings)
    t = torch.arange(1, len(solver.lambda_t) + 1)
    torch.testing.assert_close(process.log_snr(t), solver.lambda_t, rtol=1e-10, atol=1e-11)
    sigmas = ((1 - solver.alphas_cumprod) / solver.alphas_cumprod) ** 0.5
    between = torch.exp(torch.linspace(*torch.log(sigmas[[-1, 0]]).tolist(), 23, dtype=torch.float64))
    for sigma in (sigmas, between):
        theirs = solver._sigma_to_t(sigma.numpy(), torch.log(sigmas).numpy())
        ours = process.t_from_log_snr(-torch.log(sigma)) - 1
        torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-9, atol=1e-9)


def exact_table(name: str, settings: dict[str, Any]) -> Tensor:
    """Their alpha_bar in double precision, (T,)."""
    with pytest.MonkeyPatch.context() as patch:
        table: Tensor = Reference("double").double(patch).scheduler(name, **settings).alphas_cumprod
    return table


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_and_velocity(reference: Reference, schedule: str) -> None:
    """Rows at the noisiest level, in the middle and at the least noisy one."""
    process, settings = SCHEDULES[schedule]
    x0, eps = start(), fresh_noise(1)[0]
    for name in ("DDPMScheduler", "DDIMScheduler"):
        scheduler = reference.scheduler(name, **settings)
        if schedule == "cosine-zero":
            # Their rescaling takes float32 square roots, of which some processors round a fifth wrongly; at the clean
            # end, where b is .0064, that is more than the tolerance. So: their table in double precision, rounded once.
            scheduler.alphas_cumprod = exact_table(name, settings).to(reference.dtype)
        last = len(scheduler.alphas_cumprod) - 1
        timesteps = torch.tensor([last, last // 2, 0])
        theirs = scheduler.add_noise(x0, eps, timesteps), scheduler.get_velocity(x0, eps, timesteps)
        assert difference(add_noise(process, x0, timesteps + 1, eps), theirs[0]) <= reference.tolerance
        assert difference(target("v", process, x0, eps, timesteps + 1), theirs[1]) <= reference.tolerance


@pytest.mark.parametrize("schedule", WITH_SIGNAL)
def test_noise_by_sigma(double: Reference, schedule: str) -> None:
    """DPM-Solver's x_t, and Heun's, which is x_t/a."""
    process, settings = SCHEDULES[schedule]
    x0, eps = start(), fresh_noise(1)[0]
    solver = double.scheduler("DPMSolverMultistepScheduler", **settings)
    solver.set_timesteps(10)
    timesteps = solver.timesteps[[0, 4, 9]]
    ours = add_noise(process, x0, timesteps + 1, eps)
    assert difference(ours, solver.add_noise(x0, eps, timesteps)) <= double.tolerance
    heun = double.scheduler("HeunDiscreteScheduler", **settings, timestep_spacing="leading")
    heun.set_timesteps(10)
    timesteps = heun.timesteps[[0, 7, -1]]
    ours = add_noise(process, x0, timesteps + 1, eps) / process.signal_rate(timesteps + 1).reshape(-1, 1, 1, 1)
    assert difference(ours, heun.add_noise(x0, eps, timesteps)) <= double.tolerance


@pytest.mark.parametrize(("timestep", "earlier"), [(999, 998), (999, 400), (500, 20), (20, 0), (1, 0)])
@pytest.mark.parametrize("schedule", ["linear", "scaled-linear", "cosine", "linear-zero", "cosine-zero"])
def test_posterior_variance_at_any_stride(double: Reference, schedule: str, timestep: int, earlier: int) -> None:
    process, settings = SCHEDULES[schedule]
    theirs = double.scheduler("DDIMScheduler", **settings)._get_variance(timestep, earlier)
    x = torch.zeros(1, dtype=torch.float64)
    _, var = posterior(process, x, x, torch.tensor(timestep + 1), torch.tensor(earlier + 1))
    assert float(var) == pytest.approx(float(theirs), rel=1e-10)
