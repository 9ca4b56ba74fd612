"""The step functions against each other, against the posterior, and against numbers worked out by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor

from calotype.core.types import Step
from calotype.process import Process, RectifiedFlow, VariancePreserving, posterior
from calotype.sampling import SAMPLERS, ddim_step, ddpm_step, dpmpp_2m_sde_step, dpmpp_2m_step, heun_step
from tests.sampling.oracles import PROCESSES, ExactDenoiser

ALL = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
SHARES = pytest.mark.parametrize(("share", "share_next"), [(1.0, 0.9), (0.8, 0.3), (0.3, 0.29), (0.1, 0.0)])


def take(
    step: Step,
    process: Process,
    x_t: Tensor,
    t: float,
    t_next: float,
    noise: Tensor | None = None,
    memory: object = None,
) -> tuple[Tensor, object]:
    denoiser = ExactDenoiser(process, mean=0.3)
    ends = torch.tensor(t, dtype=torch.float64), torch.tensor(t_next, dtype=torch.float64)
    return step(denoiser, process, x_t, *ends, cond=None, noise=noise, memory=memory)


@ALL
@SHARES
@pytest.mark.parametrize(
    "step", [ddpm_step, partial(ddim_step, eta=1.0), dpmpp_2m_sde_step], ids=["ddpm", "ddim-eta-1", "first-sde"]
)
def test_stochastic_steps_draw_from_the_posterior(
    process: Process, share: float, share_next: float, step: Step
) -> None:
    t, t_next = share * process.t_max, share_next * process.t_max
    x_t, noise = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    x0_hat = ExactDenoiser(process, mean=0.3)(x_t, torch.full((4,), t, dtype=torch.float64))
    mean, var = posterior(process, x0_hat, x_t, torch.tensor(t).double(), torch.tensor(t_next).double())
    x_next, _ = take(step, process, x_t, t, t_next, noise)
    torch.testing.assert_close(x_next, mean + var.sqrt() * noise, rtol=1e-6, atol=1e-6)


@ALL
@SHARES
def test_first_multistep_step_is_ddim(process: Process, share: float, share_next: float) -> None:
    x_t = torch.randn(4, 3, dtype=torch.float64)
    ends = share * process.t_max, share_next * process.t_max
    torch.testing.assert_close(take(dpmpp_2m_step, process, x_t, *ends)[0], take(ddim_step, process, x_t, *ends)[0])


@ALL
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_ddim_of_any_eta_keeps_the_marginal(process: Process, eta: float) -> None:
    """With x0 known, x_t = a x0 + b eps becomes N(a_s x0, b_s^2); eta^2 of the posterior's variance is fresh."""
    t, t_next = (torch.tensor(share * process.t_max, dtype=torch.float64) for share in (0.8, 0.5))
    x_t = torch.zeros(1, 2, dtype=torch.float64)
    x_t[0, 0] = process.noise_rate(t)  # column 0: coefficient on eps; column 1: on the fresh noise (x0 = 0)
    fresh = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    x_s, _ = ddim_step(lambda x, t, cond: x * 0, process, x_t, t, t_next, noise=fresh, eta=eta)
    _, var = posterior(process, x_t, x_t, t, t_next)
    assert float(x_s.square().sum()) == pytest.approx(float(process.noise_rate(t_next)) ** 2)
    assert float(x_s[0, 1]) ** 2 == pytest.approx(eta**2 * float(var))


def test_ddim_in_the_letters_of_the_seed() -> None:
    """x_next = gamma' x0_hat + (alpha'/alpha) (x_t - gamma x0_hat), alpha = .8 -> .6."""
    process, x_t = VariancePreserving.angle(), torch.tensor([[2.0]], dtype=torch.float64)
    x_next, _ = ddim_step(
        lambda x, t, cond: torch.full_like(x, 0.5), process, x_t, torch.tensor(0.8), torch.tensor(0.6)
    )
    assert float(x_next) == pytest.approx(0.8 * 0.5 + 0.6 / 0.8 * (2 - 0.6 * 0.5), rel=1e-6)


def test_ddim_on_a_flow_is_euler() -> None:
    process, x_t = RectifiedFlow(), torch.randn(5, 2, dtype=torch.float64)
    x0_hat = ExactDenoiser(process, mean=0.3)(x_t, torch.full((5,), 0.7, dtype=torch.float64))
    velocity = (x_t - x0_hat) / 0.7
    torch.testing.assert_close(take(ddim_step, process, x_t, 0.7, 0.4)[0], x_t - 0.3 * velocity)


def test_multistep_by_hand() -> None:
    """sigma = 4 -> 2 -> 1 with a = 1: h = ln 2 both times, r = 1, D = 1.5 x0_hat - .5 x0_hat_before, e^-h = .5."""
    process = PROCESSES["exploding"]
    answers = iter([10.0, 20.0])
    x_t, memory = torch.tensor([[100.0]], dtype=torch.float64), None
    for t, t_next in ((4.0, 2.0), (2.0, 1.0)):
        answer = next(answers)
        x_t, memory = dpmpp_2m_step(
            lambda x, t, cond, answer=answer: torch.full_like(x, answer),
            process, x_t, torch.tensor(t), torch.tensor(t_next), memory=memory,
        )  # fmt: skip
    first = 0.5 * 100 + 0.5 * 10
    assert float(x_t) == pytest.approx(0.5 * first + 0.5 * (1.5 * 20 - 0.5 * 10))


def test_multistep_with_unequal_steps_by_hand() -> None:
    """sigma = 8 -> 2 -> 1: h_before = 2 ln 2, h = ln 2, so r = 2 and D = 1.25 x0_hat - .25 x0_hat_before."""
    process = PROCESSES["exploding"]
    x_t = torch.tensor([[100.0]], dtype=torch.float64)
    x_t, memory = dpmpp_2m_step(lambda x, t, c: x * 0 + 10, process, x_t, torch.tensor(8.0), torch.tensor(2.0))
    assert float(x_t) == pytest.approx(0.25 * 100 + 0.75 * 10)
    x_t, _ = dpmpp_2m_step(
        lambda x, t, c: x * 0 + 20, process, x_t, torch.tensor(2.0), torch.tensor(1.0), memory=memory
    )
    assert float(x_t) == pytest.approx(0.5 * 32.5 + 0.5 * (1.25 * 20 - 0.25 * 10))


def test_heun_by_hand() -> None:
    """sigma = 2 -> 1, a = 1, D(x, sigma) = x / (1 + sigma^2): the slope is x sigma / (1 + sigma^2)."""
    process = PROCESSES["exploding"]
    x_t = torch.tensor([[5.0]], dtype=torch.float64)
    x_next, _ = heun_step(lambda x, t, c: x / (1 + t[:, None] ** 2), process, x_t, torch.tensor(2.0), torch.tensor(1.0))
    slope = 5 * 2 / 5
    slope_next = (5 - slope) * 1 / 2
    assert float(x_next) == pytest.approx(5 - (slope + slope_next) / 2)


@pytest.mark.parametrize("step", [dpmpp_2m_step, heun_step, ddim_step])
def test_a_start_without_signal_is_finite(step: Step) -> None:
    for process in (RectifiedFlow(), VariancePreserving.cosine(zero_terminal_snr=True)):
        x_t = torch.randn(3, 2, dtype=torch.float64)
        x_s, memory = take(step, process, x_t, process.t_max, 0.8 * process.t_max)
        x_r, _ = take(step, process, x_s, 0.8 * process.t_max, 0.6 * process.t_max, memory=memory)
        assert bool(torch.isfinite(x_r).all())


def test_large_variance_is_the_forward_one() -> None:
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    x_t, noise = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    silent, _ = take(ddpm_step, process, x_t, 3, 2, torch.zeros_like(noise))
    large, _ = take(partial(ddpm_step, variance="large"), process, x_t, 3, 2, noise)
    assert float((large - silent) ** 2) == pytest.approx(0.3)  # beta_3
    skipping, _ = take(partial(ddpm_step, variance="large"), process, x_t, 3, 1, noise)
    silent, _ = take(ddpm_step, process, x_t, 3, 1, torch.zeros_like(noise))
    assert float((skipping - silent) ** 2) == pytest.approx(1 - 0.504 / 0.9)


@pytest.mark.parametrize("step", [ddpm_step, dpmpp_2m_sde_step, partial(ddim_step, eta=0.5)])
def test_a_stochastic_step_without_noise_is_an_error(step: Step) -> None:
    process, x_t = VariancePreserving.linear(), torch.randn(2, 3)
    with pytest.raises(ValueError, match="stochastic"):
        take(step, process, x_t, 500, 400)
    with pytest.raises(ValueError, match="shape"):
        take(step, process, x_t, 500, 400, torch.randn(1, 3))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_to_more_noise_is_an_error(name: str) -> None:
    for t_next in (500, 600):
        with pytest.raises(ValueError, match="less noise"):
            take(SAMPLERS[name].step, VariancePreserving.linear(), torch.randn(1, 2), 500, t_next, torch.randn(1, 2))


@ALL
@pytest.mark.parametrize("name", SAMPLERS)
def test_single_precision_stays_single_and_close(process: Process, name: str) -> None:
    x_t, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)

    def denoiser(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return ExactDenoiser(process, mean=0.3)(x.double(), t).to(x.dtype)

    ends = torch.tensor(0.6 * process.t_max), torch.tensor(0.5 * process.t_max)
    kinds = [
        SAMPLERS[name].step(denoiser, process, x, *ends, cond=None, noise=n, memory=None)[0]
        for x, n in ((x_t, noise), (x_t.double(), noise.double()))
    ]
    assert kinds[0].dtype == torch.float32
    torch.testing.assert_close(kinds[0].double(), kinds[1], rtol=1e-5, atol=1e-5)
