"""Steps that are derived apart and are one, on every family; and the posterior, to the last digits."""

from functools import partial

import pytest
import torch
from torch import Tensor

from calotype.core.types import Step
from calotype.process import Process, posterior
from calotype.sampling import (
    SAMPLERS,
    alpha_step,
    ddim_step,
    ddpm_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    euler_step,
)
from tests.sampling.oracles import PROCESSES, ExactDenoiser, assert_close, take

ALL = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
SHARES = pytest.mark.parametrize(("share", "share_next"), [(1.0, 0.9), (0.8, 0.3), (0.3, 0.29), (0.1, 0.0)])


@ALL
@SHARES
@pytest.mark.parametrize(
    "step", [ddpm_step, partial(ddim_step, eta=1.0), dpmpp_2m_sde_step], ids=["ddpm", "ddim-eta-1", "first-sde"]
)
def test_stochastic_steps_draw_from_the_posterior(
    process: Process, share: float, share_next: float, step: Step
) -> None:
    """To 1e-10 in double precision, at any stride."""
    t, t_next = share * process.t_max, share_next * process.t_max
    ends = (torch.tensor(end, dtype=torch.float64) for end in (t, t_next))
    generator = torch.Generator().manual_seed(0)
    x_t, noise = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    x0_hat = ExactDenoiser(process, mean=0.3)(x_t, torch.full((4,), t, dtype=torch.float64))
    mean, var = posterior(process, x0_hat, x_t, *ends)
    x_next, _ = take(step, process, x_t, t, t_next, noise)
    assert_close(x_next, mean + var.sqrt() * noise, rtol=1e-10, atol=1e-10)


@ALL
@SHARES
@pytest.mark.parametrize("step", [dpmpp_2m_step, alpha_step, euler_step])
def test_deterministic_first_order_steps_are_one(process: Process, share: float, share_next: float, step: Step) -> None:
    """Three derivations, one step: DDIM of eta 0, the seed's, Euler's, and the first of DPM-Solver++."""
    x_t = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = share * process.t_max, share_next * process.t_max
    found, expected = take(step, process, x_t, *ends)[0], take(ddim_step, process, x_t, *ends)[0]
    assert_close(found, expected, rtol=1e-10, atol=1e-10)


@ALL
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_ddim_of_any_eta_keeps_the_marginal(process: Process, eta: float) -> None:
    """With x0 known, x_t = a x0 + b eps becomes N(a_s x0, b_s^2); eta^2 of the posterior's variance is fresh."""
    t, t_next = (torch.tensor(share * process.t_max, dtype=torch.float64) for share in (0.8, 0.5))
    x_t = torch.zeros(1, 2, dtype=torch.float64)
    x_t[0, 0] = process.noise_rate(t)  # column 0: coefficient on eps; column 1: on the fresh noise (x0 = 0)
    noise = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    x_s, _ = ddim_step(lambda x, t, cond: x * 0, process, x_t, t, t_next, noise=noise, eta=eta)
    _, var = posterior(process, x_t, x_t, t, t_next)
    assert float(x_s.square().sum()) == pytest.approx(float(process.noise_rate(t_next)) ** 2)
    assert float(x_s[0, 1]) ** 2 == pytest.approx(eta**2 * float(var))


@ALL
@pytest.mark.parametrize("name", SAMPLERS)
def test_single_precision_stays_single_and_close(process: Process, name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x_t, noise = torch.randn(2, 2, 4, 3, 3, generator=generator)

    def denoiser(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return ExactDenoiser(process, mean=0.3)(x.double(), t).to(x.dtype)

    ends = torch.tensor(0.6 * process.t_max), torch.tensor(0.5 * process.t_max)
    single, double = (
        SAMPLERS[name].step(denoiser, process, x, *ends, cond=None, noise=n, memory=None)[0]
        for x, n in ((x_t, noise), (x_t.double(), noise.double()))
    )
    assert single.dtype == torch.float32
    assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
