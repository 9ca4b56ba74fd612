"""What the loop refuses, each with one line that says what is wrong and where."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process import RectifiedFlow, VariancePreserving, add_noise
from calotype.sampling import ddim_step, ddpm_step, heun_step, sample, sample_frames, timestep_grid
from tests.sampling.oracles import ExactDenoiser, trained


def test_a_start_above_the_trained_levels_is_refused_with_both_numbers() -> None:
    process = VariancePreserving.angle(0.999)
    grid = timestep_grid(process, 10)
    with pytest.raises(UserError, match=r"t = 0\.999, but the model was trained up to t = 0\.84"):
        sample(trained(process, t_max=0.84), process, torch.randn(1, 2), grid)
    linear = VariancePreserving.linear()
    with pytest.raises(UserError, match=r"t = 1200.*t = 1000"):
        sample(ExactDenoiser(linear), linear, torch.randn(1, 2), torch.tensor([1200.0, 0.0]))


def test_the_check_looks_through_wrappers() -> None:
    class Wrapper:
        def __init__(self, denoiser: Any) -> None:
            self.denoiser = denoiser

        def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            return self.denoiser(x_t, t, cond)

    process = VariancePreserving.angle()
    wrapped = Wrapper(Wrapper(trained(process, t_max=0.84)))
    with pytest.raises(UserError, match=r"0\.84"):
        sample(wrapped, process, torch.randn(1, 2), timestep_grid(process, 10))


def test_another_process_than_the_trained_one_is_refused() -> None:
    linear, flow = VariancePreserving.linear(), RectifiedFlow()
    with pytest.raises(UserError) as refusal:
        sample(trained(flow), linear, torch.randn(1, 2), timestep_grid(linear, 10))
    expected = f"the denoiser was trained on RectifiedFlow(), the sampler steps by {linear!r}: use one process"
    assert str(refusal.value) == expected


def test_an_equal_process_or_one_of_ones_own_is_not_refused() -> None:
    class Mine:
        t_max, t_min = 1.0, 0.1
        signal_rate, noise_rate, log_snr = (staticmethod(getattr(RectifiedFlow(), name)) for name in (
            "signal_rate", "noise_rate", "log_snr"
        ))  # fmt: skip

    for known, stepped in (
        (VariancePreserving.linear(), VariancePreserving.linear()),
        (Mine(), RectifiedFlow()),
        (RectifiedFlow(), Mine()),
    ):
        grid = torch.tensor([0.5, 0.0])
        sample(trained(known), stepped, torch.randn(1, 2), grid, step=ddim_step)  # type: ignore[arg-type]


def test_static_instead_of_a_picture_is_refused_but_a_noised_picture_may_start() -> None:
    process = VariancePreserving.linear(num_train_steps=100, beta_end=0.002)
    denoiser, grid = trained(process), timestep_grid(process, 50)
    with pytest.raises(UserError, match=r"signal_rate 0\.949.*0\.1"):
        sample(denoiser, process, torch.randn(1, 2), grid)
    x_t = add_noise(process, torch.ones(1, 2), torch.tensor(100), torch.randn(1, 2))
    sample(denoiser, process, x_t, grid, from_prior=False)
    sample(denoiser, process, x_t, grid[10:])


def test_refusals_come_at_the_call_not_at_the_first_frame() -> None:
    process = VariancePreserving.linear(num_train_steps=50)
    with pytest.raises(UserError):
        sample_frames(trained(process), process, torch.randn(1, 2), timestep_grid(process, 5))


@pytest.mark.parametrize(
    "grid", [5.0, [], [5.0], [[5.0, 0.0]], [[5.0, 4.0], [3.0, 2.0]], [5.0, 5.0, 0.0], [5.0, 6.0], [5.0, float("nan")]]
)
def test_a_grid_that_does_not_fall_is_an_error(grid: Any) -> None:
    process = VariancePreserving.linear()
    levels = torch.tensor(grid)
    falls = levels.ndim == 1 and len(levels) > 1
    message = (
        "^the grid must be strictly decreasing$"
        if falls
        else rf"at least 2 .* shape \({str(tuple(levels.shape))[1:-1]}\)$"
    )
    with pytest.raises(ValueError, match=message):
        sample(trained(process), process, torch.randn(1, 2), levels, step=ddpm_step)


def test_two_levels_are_a_grid_and_so_is_a_list() -> None:
    process = RectifiedFlow()
    x0 = sample(lambda x_t, t, cond: x_t * 0 + 4, process, torch.zeros(1, 2), [0.5, 0.0], step=ddim_step)  # type: ignore[arg-type]
    assert torch.equal(x0, torch.full((1, 2), 4.0))


def test_an_answer_of_another_shape_is_refused() -> None:
    process, x_T = RectifiedFlow(), torch.zeros(3, 2)
    for columns in (1, 4):
        refusal = (
            rf"^the denoiser gave shape \(3, {columns}\) for x_t of shape \(3, 2\): it must give an estimate of x0"
        )
        with pytest.raises(UserError, match=refusal):
            sample(lambda x_t, t, cond, n=columns: torch.zeros(3, n), process, x_T, timestep_grid(process, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("step", "t"), [(1, "1"), (2, r"0\.75"), (3, r"0\.5"), (4, r"0\.25")])
def test_an_answer_that_is_no_number_is_refused_with_its_place(step: int, t: str, bad: float) -> None:
    process, calls = RectifiedFlow(), []

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        calls.append(t)
        x0_hat = x_t * 0
        if len(calls) == step:
            x0_hat[1, 1], x0_hat[3, 0] = bad, bad
        return x0_hat

    refusal = rf"^the denoiser gave NaN or infinity at t = {t} \(step {step} of 4\), in rows \[1, 3\] of 4: look at its"
    with pytest.raises(UserError, match=refusal):
        sample(denoiser, process, torch.zeros(4, 2), timestep_grid(process, 4), step=ddim_step)
    assert len(calls) == step


def test_heuns_second_look_is_watched_as_well() -> None:
    process = RectifiedFlow()

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        return x_t * (math.nan if float(t[0]) == 0.75 else 0)

    with pytest.raises(
        UserError, match=r"the denoiser gave NaN or infinity at t = 0\.75 \(step 1 of 4\), in rows \[0\] of 1"
    ):
        sample(denoiser, process, torch.zeros(1, 2), timestep_grid(process, 4), step=heun_step)


def test_a_state_that_is_no_number_is_not_blamed_on_the_denoiser() -> None:
    process, x_T = RectifiedFlow(), torch.zeros(3, 2)
    x_T[2, 0] = math.nan
    with pytest.raises(
        UserError, match=r"^the denoiser was given NaN or infinity at t = 1 \(step 1 of 4\), in rows \[2\] of 3"
    ):
        sample(trained(process), process, x_T, timestep_grid(process, 4))


def test_a_start_within_single_precision_of_t_max_is_the_prior() -> None:
    """A grid that came through float32 may start a little above or below t_max: it is not refused, and is checked."""
    process = VariancePreserving.angle(0.999)
    grid = timestep_grid(process, 5).float()
    assert float(grid[0]) > 0.999
    sample(trained(process), process, torch.randn(1, 2), grid)
    short = VariancePreserving.linear(num_train_steps=100, beta_end=0.002)
    with pytest.raises(UserError, match="signal_rate"):
        sample(trained(short), short, torch.randn(1, 2), torch.tensor([100 * (1 - 1e-7), 0], dtype=torch.float64))
    sample(trained(short), short, torch.randn(1, 2), torch.tensor([100 * (1 - 2e-6), 0], dtype=torch.float64))


def test_the_rounding_a_start_is_granted() -> None:
    process = VariancePreserving.linear()
    denoiser = trained(process, t_max=500.0)
    sample(denoiser, process, torch.randn(1, 2), torch.tensor([500 * (1 + 1e-6), 0], dtype=torch.float64))
    with pytest.raises(UserError, match="start the grid inside the trained range"):
        sample(denoiser, process, torch.randn(1, 2), torch.tensor([500 * (1 + 1.01e-6), 0], dtype=torch.float64))


def test_from_prior_may_be_said() -> None:
    """Noise at an inner level is a start from the prior if the caller says so."""
    process = VariancePreserving.linear(num_train_steps=100, beta_end=0.002)
    grid = timestep_grid(process, 10)[2:]
    sample(trained(process), process, torch.randn(1, 2), grid)
    with pytest.raises(UserError, match="signal_rate"):
        sample(trained(process), process, torch.randn(1, 2), grid, from_prior=True)
    with pytest.raises(UserError, match="signal_rate"):
        sample_frames(trained(process), process, torch.randn(1, 2), grid, from_prior=True)
