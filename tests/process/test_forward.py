"""Noising and the posterior against Gaussian conditioning and hand-worked numbers."""

import pytest
import torch
from torch import Tensor

from calotype.process import Process, RectifiedFlow, VariancePreserving, add_noise, posterior
from calotype.process.forward import broadcast
from tests.process.families import FAMILIES, close, float64

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())


def conditioned(process: Process, x0: Tensor, x_t: Tensor, t: Tensor, t_next: Tensor) -> tuple[Tensor, Tensor]:
    """q(x_s given x_t, x0) from the joint Gaussian of (x_s, x_t): the covariance is (a/a_s) b_s^2."""
    a, b = process.signal_rate(t), process.noise_rate(t)
    a_s, b_s = process.signal_rate(t_next), process.noise_rate(t_next)
    covariance = a / a_s * b_s**2
    return a_s * x0 + covariance / b**2 * (x_t - a * x0), b_s**2 - covariance**2 / b**2


def test_add_noise_by_hand() -> None:
    process = VariancePreserving.angle()
    x0, eps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    x_t = add_noise(process, x0, torch.tensor([0.6, 0.28]), eps)
    close(x_t, torch.tensor([[6.8, 13.6], [11.28, 15.04]]), rtol=1e-6)
    assert x_t.dtype == torch.float32
    close(add_noise(process, x0, torch.tensor(0.6), eps)[0], torch.tensor([6.8, 13.6]), rtol=1e-6)


def test_rates_go_where_x_t_is_and_stay_scalar_if_they_are() -> None:
    x_t = torch.empty(2, 3, 4, 4, dtype=torch.float16, device="meta")
    rate = broadcast(float64(0.1, 0.2), x_t)
    assert (rate.shape, rate.dtype, rate.device.type) == ((2, 1, 1, 1), torch.float16, "meta")
    assert broadcast(float64(0.1)[0], x_t).shape == ()


@ALL
def test_add_noise_gives_every_row_its_own_level(process: Process) -> None:
    t = float64(0, 0.3, 1) * process.t_max
    x0, eps = torch.randn(3, 4, 2, 2, dtype=torch.float64), torch.randn(3, 4, 2, 2, dtype=torch.float64)
    x_t = add_noise(process, x0, t, eps)
    assert torch.equal(x_t[0], x0[0])
    for i in range(3):
        close(x_t[i : i + 1], add_noise(process, x0[i : i + 1], t[i], eps[i : i + 1]))


@ALL
def test_posterior_is_gaussian_conditioning_at_any_stride(process: Process) -> None:
    x0, x_t = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    for share, share_next in ((1.0, 0.95), (1.0, 0.0), (0.7, 0.2), (0.5, 0.45), (0.05, 0.0)):
        t, t_next = float64(share, share_next) * process.t_max
        mean, var = posterior(process, x0, x_t, t, t_next)
        expected_mean, expected_var = conditioned(process, x0, x_t, t, t_next)
        close(mean, expected_mean, rtol=1e-10, atol=1e-10)
        close(var, expected_var, rtol=1e-8, atol=1e-12)


def test_one_step_posterior_is_the_one_of_ho_et_al() -> None:
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    mean, var = posterior(process, float64(0.5)[None], float64(-1)[None], torch.tensor(3), torch.tensor(2))
    beta, alpha_bar, alpha_bar_before = 0.3, 0.504, 0.72
    assert float(var) == pytest.approx((1 - alpha_bar_before) / (1 - alpha_bar) * beta, rel=1e-12)
    expected = alpha_bar_before**0.5 * beta / (1 - alpha_bar) * 0.5
    expected += (1 - beta) ** 0.5 * (1 - alpha_bar_before) / (1 - alpha_bar) * -1.0
    assert float(mean) == pytest.approx(expected, rel=1e-12)


def test_posterior_between_near_levels_keeps_its_digits() -> None:
    """b^2 - (a/a_s)^2 b_s^2 of the flow at t = 1/2 and h below: 4h in the limit, lost if it is subtracted."""
    x, h = torch.zeros(1, 1, dtype=torch.float64), 2.0**-40
    var = posterior(RectifiedFlow(), x, x, float64(0.5)[0], float64(0.5 - h)[0])[1]
    assert float(var) == pytest.approx(h, rel=1e-10)


@ALL
def test_two_posterior_steps_compose_to_one(process: Process) -> None:
    """Drawing x_s and then x_r must have the moments of drawing x_r at once."""
    t, s, r = float64(0.9, 0.6, 0.25) * process.t_max
    x0, x_t = float64(0.7)[None], float64(-0.4)[None]
    mean_s, var_s = posterior(process, x0, x_t, t, s)
    mean_two, var_last = posterior(process, x0, mean_s, s, r)
    slope = posterior(process, x0, mean_s + 1, s, r)[0] - mean_two
    mean_one, var_one = posterior(process, x0, x_t, t, r)
    close(mean_two, mean_one, rtol=1e-10, atol=1e-12)
    close(var_last + slope[0, 0] ** 2 * var_s, var_one, rtol=1e-9, atol=1e-14)


def test_posterior_lands_on_x0_and_takes_rows() -> None:
    process = RectifiedFlow()
    x0, x_t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mean, var = posterior(process, x0, x_t, torch.tensor([0.5, 0.1]), torch.tensor([0.0, 0.05]))
    assert torch.equal(mean[0], x0[0])
    assert var.shape == (2, 1, 1, 1)
    assert var.dtype == torch.float32
    assert float(var[0]) == 0


@pytest.mark.parametrize("t_next", [5, 6])
def test_posterior_refuses_to_go_to_more_noise(t_next: int) -> None:
    x = torch.zeros(2, 1)
    said = rf"^the posterior goes to less noise: t_next \[1, {t_next}\] is not below t \[5, 5\]$"
    with pytest.raises(ValueError, match=said):
        posterior(VariancePreserving.linear(), x, x, torch.tensor([5, 5]), torch.tensor([1, t_next]))
