"""On Gaussian data, where the answer is known, every solver's error shrinks at its order."""

import math

import pytest
import torch

from calotype.core.types import Step
from calotype.process import Process
from calotype.sampling import (
    SAMPLERS,
    ddim_step,
    ddpm_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    heun_step,
    sample,
    timestep_grid,
)
from tests.sampling.oracles import PROCESSES, ExactDenoiser, log_snr_grid, propagated_deviation

ALL = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
ORDERS: list[tuple[str, Step, int]] = [
    ("ddim", ddim_step, 1),
    ("ddpm", ddpm_step, 1),
    ("dpm++2m", dpmpp_2m_step, 2),
    ("dpm++2m-sde", dpmpp_2m_sde_step, 2),
    ("heun", heun_step, 2),
]


@ALL
@pytest.mark.parametrize(("step", "order"), [case[1:] for case in ORDERS], ids=[case[0] for case in ORDERS])
def test_error_of_the_deviation_shrinks_at_the_order(process: Process, step: Step, order: int) -> None:
    denoiser, errors = ExactDenoiser(process), []
    for num_steps in (80, 160):
        grid = log_snr_grid(process, num_steps)
        errors.append(abs(propagated_deviation(step, denoiser, grid) - denoiser.marginal(grid[-1])[1]))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@ALL
@pytest.mark.parametrize("name", SAMPLERS)
def test_mean_and_deviation_after_the_whole_way(process: Process, name: str) -> None:
    """From q(x_T) to t = 0 in 120 steps the distribution is the data's."""
    sampler, denoiser = SAMPLERS[name], ExactDenoiser(process, mean=0.3)
    grid = timestep_grid(process, 120, sampler.grid)
    mean, _ = denoiser.marginal(grid[0])
    middle = sample(
        denoiser,
        process,
        torch.full((1, 1), mean, dtype=torch.float64),
        grid,
        step=sampler.step,
        noise=lambda i, x_t: torch.zeros_like(x_t),
    )
    assert float(middle) == pytest.approx(0.3, abs=1e-9)  # the mean has no solver error
    assert propagated_deviation(sampler.step, ExactDenoiser(process), grid) == pytest.approx(0.5, rel=0.06)


@ALL
@pytest.mark.parametrize("step", [dpmpp_2m_step, heun_step, dpmpp_2m_sde_step, ddim_step])
def test_the_landing_is_the_estimate(process: Process, step: Step) -> None:
    """Whatever the past, the last step to t = 0 gives x0_hat itself, with no noise asked for."""
    denoiser = ExactDenoiser(process, mean=0.2)
    x_t = torch.randn(3, 4, dtype=torch.float64)
    t, t_before = torch.tensor(0.05 * process.t_max), torch.tensor(0.1 * process.t_max)
    memory = step(denoiser, process, x_t, t_before, t, cond=None, noise=torch.zeros_like(x_t), memory=None)[1]
    x0, _ = step(denoiser, process, x_t, t, torch.tensor(0.0), cond=None, noise=None, memory=memory)
    torch.testing.assert_close(x0, denoiser(x_t, t.expand(3)))


def test_two_points_are_followed_like_a_fine_reference() -> None:
    """Data at -1 and +1 (not Gaussian): paths of few second-order steps end where 400 fine ones do."""
    process = PROCESSES["cosine"]

    def denoiser(x_t: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
        a, b = process.signal_rate(t)[:, None], process.noise_rate(t)[:, None]
        return torch.tanh(a * x_t / b**2)

    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    x = x[x[:, 0].abs() > 0.15]
    fine = log_snr_grid(process, 400, 0.98, 0.5)
    reference = sample(denoiser, process, x, fine, step=heun_step)
    for step, bound in ((dpmpp_2m_step, 0.01), (heun_step, 0.01), (ddim_step, 0.1)):
        found = sample(denoiser, process, x, log_snr_grid(process, 30, 0.98, 0.5), step=step)
        assert float((found - reference).abs().max()) < bound
