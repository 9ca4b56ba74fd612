"""The step functions against numbers worked out by hand, and what they all have in common."""

import dataclasses
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.types import Step
from calotype.process import Process, RectifiedFlow, VariancePreserving
from calotype.sampling import (
    SAMPLERS,
    alpha_step,
    ddim_step,
    ddpm_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    euler_step,
    heun_step,
)
from calotype.sampling.dpm_solver import Past
from tests.sampling.oracles import PROCESSES, assert_close, take

BY_NAME = pytest.mark.parametrize("name", SAMPLERS)
EXPLODING = PROCESSES["exploding"]


def answering(*answers: float) -> Any:
    """A denoiser that gives these numbers, one a call, whatever it is asked."""
    left = iter(answers)
    return lambda x_t, t, cond: torch.full_like(x_t, next(left))


def step_by_hand(step: Any, process: Process, x: float, t: float, t_next: float, *answers: float, **rest: Any) -> float:
    x_t = torch.tensor([[x]], dtype=torch.float64)
    if "noise" in rest:
        rest["noise"] = torch.tensor([[rest["noise"]]], dtype=torch.float64)
    ends = torch.tensor(t, dtype=torch.float64), torch.tensor(t_next, dtype=torch.float64)
    return float(step(answering(*answers), process, x_t, *ends, **rest)[0])


def test_alpha_step_by_hand() -> None:
    """x_next = gamma' x0_hat + (alpha'/alpha) (x_t - gamma x0_hat), alpha = .8 -> .6 in the letters of the seed."""
    angle = VariancePreserving.angle()
    expected = 0.8 * 0.5 + 0.6 / 0.8 * (2 - 0.6 * 0.5)
    assert step_by_hand(alpha_step, angle, 2, 0.8, 0.6, 0.5) == pytest.approx(expected, rel=1e-12)
    assert step_by_hand(ddim_step, angle, 2, 0.8, 0.6, 0.5) == pytest.approx(expected, rel=1e-12)


def test_euler_step_by_hand() -> None:
    """On a flow x_t + (s - t) u with u = (x_t - x0_hat)/t; in sigma, x_t + (sigma' - sigma)(x_t - x0_hat)/sigma."""
    assert step_by_hand(euler_step, RectifiedFlow(), 2, 0.8, 0.2, 0.5) == pytest.approx(2 - 0.6 * (2 - 0.5) / 0.8)
    assert step_by_hand(euler_step, EXPLODING, 6, 4, 1, 2) == pytest.approx(6 - 3 * (6 - 2) / 4)
    angle = VariancePreserving.angle()  # (a, b) from (.6, .8) to (.8, .6)
    expected = 2 + 0.2 * 0.5 - 0.2 * (2 - 0.6 * 0.5) / 0.8
    assert step_by_hand(euler_step, angle, 2, 0.8, 0.6, 0.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_ddim_step_by_hand(eta: float) -> None:
    """sigma = 4 -> 2 with a = 1: e^(-2h) = 1/4, so the variance of the posterior is 4 * 3/4."""
    var = eta**2 * 3
    expected = 3 + math.sqrt(4 - var) * (11 - 3) / 4 + math.sqrt(var) * 5
    assert step_by_hand(ddim_step, EXPLODING, 11, 4, 2, 3, eta=eta, noise=5.0) == pytest.approx(expected, rel=1e-12)


def test_ddpm_step_by_hand() -> None:
    """sigma = 4 -> 2 with a = 1: mean = x0_hat + (x_t - x0_hat)/4, small variance 4 * 3/4, large 16 * 3/4."""
    small = step_by_hand(ddpm_step, EXPLODING, 11, 4, 2, 3, noise=5.0)
    assert small == pytest.approx(3 + 8 / 4 + math.sqrt(3) * 5, rel=1e-12)
    large = step_by_hand(ddpm_step, EXPLODING, 11, 4, 2, 3, noise=5.0, variance="large")
    assert large == pytest.approx(3 + 8 / 4 + math.sqrt(12) * 5, rel=1e-12)
    assert step_by_hand(ddpm_step, EXPLODING, 11, 4, 2, 3, noise=5.0, variance="small") == small
    with pytest.raises(UserError, match=r"^unknown variance 'larg': did you mean 'large'"):
        step_by_hand(ddpm_step, EXPLODING, 11, 4, 2, 3, noise=5.0, variance="larg")


def test_multistep_by_hand() -> None:
    """sigma = 8 -> 2 -> 1 with a = 1: h_before = 2 ln 2, h = ln 2, so D = 1.25 x0_hat - .25 x0_hat_before."""
    x_t = torch.tensor([[100.0]], dtype=torch.float64)
    first, memory = dpmpp_2m_step(answering(10), EXPLODING, x_t, torch.tensor(8.0), torch.tensor(2.0))
    assert float(first) == pytest.approx(0.25 * 100 + 0.75 * 10)
    assert float(memory.x0_hat) == 10
    assert memory.log_snr == pytest.approx(-math.log(8))
    second, memory = dpmpp_2m_step(answering(20), EXPLODING, first, torch.tensor(2.0), torch.tensor(1.0), memory=memory)
    assert float(second) == pytest.approx(0.5 * 32.5 + 0.5 * (1.25 * 20 - 0.25 * 10))
    assert memory == Past(memory.x0_hat, pytest.approx(-math.log(2)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.log_snr = 0.0  # type: ignore[misc]


def test_multistep_sde_by_hand() -> None:
    """The same levels, e^(-2h) = 1/16 then 1/4; the noise enters as b_s sqrt(1 - e^(-2h))."""
    x_t, noise = torch.tensor([[100.0]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    first, memory = dpmpp_2m_sde_step(answering(10), EXPLODING, x_t, torch.tensor(8.0), torch.tensor(2.0), noise=noise)
    assert float(first) == pytest.approx(100 / 16 + 15 / 16 * 10 + 2 * math.sqrt(15 / 16) * 3)
    assert memory == Past(memory.x0_hat, pytest.approx(-math.log(8)))
    second, memory = dpmpp_2m_sde_step(
        answering(20), EXPLODING, first, torch.tensor(2.0), torch.tensor(1.0), noise=noise, memory=memory
    )
    expected = float(first) / 4 + 3 / 4 * (1.25 * 20 - 0.25 * 10) + math.sqrt(3 / 4) * 3
    assert float(second) == pytest.approx(expected)
    assert float(memory.x0_hat) == 20


def test_heun_by_hand() -> None:
    """sigma = 4 -> 1 with a = 1: slope (11 - 3)/4 = 2, Euler to 5, slope there (5 - 7)/1 = -2: the mean is 0.

    On a flow t itself is the variable: from t = .8, x = 2 with x0_hat = .4 the slope is 2, Euler to t = .3 gives 1,
    where x0_hat = .7 makes it 1. On the angle, y = x_t/a over sigma = b/a from 4/3 to 3/4.
    """
    assert step_by_hand(heun_step, EXPLODING, 11, 4, 1, 3, 7) == pytest.approx(11)
    assert step_by_hand(heun_step, EXPLODING, 11, 4, 1, 3, 4) == pytest.approx(11 - 3 * (2 + 1) / 2)
    assert step_by_hand(heun_step, RectifiedFlow(), 2, 0.8, 0.3, 0.4, 0.7) == pytest.approx(2 - 0.5 * (2 + 1) / 2)
    y, slope = 2 / 0.6, (2 / 0.6 - 0.5) / (4 / 3)
    euler = y + (3 / 4 - 4 / 3) * slope
    expected = 0.8 * (y + (3 / 4 - 4 / 3) * (slope + (euler - 0.9) / (3 / 4)) / 2)
    assert step_by_hand(heun_step, VariancePreserving.angle(), 2, 0.8, 0.6, 0.5, 0.9) == pytest.approx(expected)


def test_heun_asks_again_where_euler_led() -> None:
    asked = []

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        asked.append((float(x_t), t.tolist(), cond))
        return x_t * 0 + 3

    x_t = torch.tensor([[11.0]], dtype=torch.float64)
    heun_step(denoiser, EXPLODING, x_t, torch.tensor(4.0), torch.tensor(1.0), cond="y")
    assert asked == [(11, [4], "y"), (pytest.approx(5), [1], "y")]


@pytest.mark.parametrize("process", [RectifiedFlow(), VariancePreserving.cosine(zero_terminal_snr=True)])
def test_a_start_without_signal(process: Process) -> None:
    """At a = 0 every step is a_s x0_hat + b_s eps_hat with eps_hat = x_t, at most with fresh noise for eps_hat."""
    t, t_next = torch.tensor(process.t_max), torch.tensor(0.8 * process.t_max)
    a_s, b_s = float(process.signal_rate(t_next)), float(process.noise_rate(t_next))
    x_t, noise = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[7.0]], dtype=torch.float64)
    for sampler in SAMPLERS.values():
        straight = isinstance(process, RectifiedFlow) and sampler.name == "heun"
        denoiser = answering(5, 5) if straight else answering(5)
        x_s, memory = sampler.step(denoiser, process, x_t, t, t_next, cond=None, noise=noise, memory=None)
        if straight:  # Heun goes on in t: slope 3 - 5 at t = 1, and where Euler led, (a_s 5 + b_s 3 - 5)/b_s = -2
            assert float(x_s) == pytest.approx(3 - 0.2 * -2)
        else:
            assert float(x_s) == pytest.approx(a_s * 5 + b_s * (7 if sampler.needs_noise else 3), rel=1e-12)
        # a past without signal weighs nothing: the next step is a first step
        ends = torch.tensor(0.8 * process.t_max), torch.tensor(0.6 * process.t_max)
        later, alone = (
            sampler.step(answering(4, 4), process, x_t, *ends, cond=None, noise=noise, memory=past)[0]
            for past in (memory, None)
        )
        assert torch.equal(later, alone)


@pytest.mark.parametrize("eta", [-0.01, 1.01, 2, math.nan])
def test_an_eta_that_is_none(eta: float) -> None:
    with pytest.raises(ValueError, match=f"^eta is {eta}: it lies between 0"):
        step_by_hand(ddim_step, EXPLODING, 11, 4, 2, 3, eta=eta, noise=5.0)


def test_large_variance_is_the_forward_one() -> None:
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    large = partial(ddpm_step, variance="large")
    fresh = step_by_hand(large, process, 0, 3, 2, 0, noise=1.0)
    assert fresh**2 == pytest.approx(0.3)  # beta_3
    skipping = step_by_hand(large, process, 0, 3, 1, 0, noise=1.0)
    assert skipping**2 == pytest.approx(1 - 0.504 / 0.9)


@BY_NAME
def test_the_landing_is_the_estimate(name: str) -> None:
    """Whatever the past, the last step to t = 0 gives x0_hat itself, in one pass, with no noise asked for."""
    for process in PROCESSES.values():
        memory: Any = Past(torch.full((3, 4), 9.0), -1.0) if name.startswith("dpm++") else None
        t = torch.tensor(0.5 * process.t_max)
        x_t = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x0, _ = SAMPLERS[name].step(
            answering(5), process, x_t, t, torch.tensor(0.0), cond=None, noise=None, memory=memory
        )
        assert_close(x0, torch.full_like(x_t, 5), rtol=1e-12, atol=1e-12)


@BY_NAME
def test_memory_is_kept_by_those_who_need_it_and_handed_on_by_the_others(name: str) -> None:
    given = Past(torch.zeros(1, 1), -9.0) if name.startswith("dpm++") else "kept"
    x_t = torch.randn(1, 1)
    ends = torch.tensor(500), torch.tensor(400)
    for t, t_next in (ends, (ends[1], torch.tensor(0))):
        _, memory = SAMPLERS[name].step(
            answering(4, 4), PROCESSES["linear"], x_t, t, t_next, cond=None, noise=x_t, memory=given
        )
        assert float(memory.x0_hat) == 4 if name.startswith("dpm++") else memory == "kept"


@BY_NAME
def test_every_step_hands_the_condition_on(name: str) -> None:
    seen = []

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        seen.append(cond)
        return x_t

    x_t = torch.randn(1, 1)
    ends = torch.tensor(500), torch.tensor(400)
    SAMPLERS[name].step(denoiser, PROCESSES["linear"], x_t, *ends, cond="y", noise=x_t, memory=None)
    assert seen == ["y"] * SAMPLERS[name].passes


@pytest.mark.parametrize("step", [ddpm_step, dpmpp_2m_sde_step, partial(ddim_step, eta=0.5)])
def test_a_stochastic_step_without_noise_is_an_error(step: Step) -> None:
    process, x_t = VariancePreserving.linear(), torch.randn(2, 3)
    with pytest.raises(ValueError, match="stochastic"):
        take(step, process, x_t, 500, 400)
    with pytest.raises(ValueError, match="shape"):
        take(step, process, x_t, 500, 400, torch.randn(1, 3))


@BY_NAME
def test_a_step_to_more_noise_is_an_error(name: str) -> None:
    for t_next in (500, 600):
        with pytest.raises(ValueError, match="less noise"):
            take(SAMPLERS[name].step, VariancePreserving.linear(), torch.randn(1, 2), 500, t_next, torch.randn(1, 2))
