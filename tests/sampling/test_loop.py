"""The loop: what it hands to steps, what it streams, what it refuses, and that pictures do not see their neighbours."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process import Process, RectifiedFlow, VariancePreserving, add_noise
from calotype.sampling import SAMPLERS, ddim_step, ddpm_step, heun_step, sample, sample_frames, timestep_grid
from tests.sampling.oracles import PROCESSES, ExactDenoiser


class Trained(ExactDenoiser):
    """An exact denoiser that says what it was trained on."""

    t_max: float = 0.0


def trained(process: Process, t_max: float | None = None) -> Trained:
    denoiser = Trained(process)
    object.__setattr__(denoiser, "t_max", process.t_max if t_max is None else t_max)
    return denoiser


def noise_of(seeds: Tensor) -> Any:
    def draw(i: int, x_t: Tensor) -> Tensor:
        rows = [
            torch.randn(x_t.shape[1:], generator=torch.Generator().manual_seed(s * 1000 + i)) for s in seeds.tolist()
        ]
        return torch.stack(rows)

    return draw


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_a_picture_is_the_same_alone_and_in_a_batch(process: Process, name: str) -> None:
    sampler, seeds = SAMPLERS[name], torch.arange(6)
    x_t = process.prior((6, 2, 3, 3), torch.randn(6, 2, 3, 3))
    grid = timestep_grid(process, 9, sampler.grid)
    together = sample(trained(process), process, x_t, grid, step=sampler.step, noise=noise_of(seeds))
    alone = sample(trained(process), process, x_t[4:5], grid, step=sampler.step, noise=noise_of(seeds[4:5]))
    torch.testing.assert_close(together[4:5], alone, rtol=1e-5, atol=1e-5)


def test_what_a_step_is_handed() -> None:
    process, calls, grid = RectifiedFlow(), [], torch.tensor([1.0, 0.5, 0.25, 0.0])
    x = torch.zeros(2, 3)

    def step(denoiser: Any, p: Any, x_t: Tensor, t: Tensor, t_next: Tensor, **rest: Any) -> tuple[Tensor, Any]:
        calls.append((float(t), float(t_next), rest["cond"], rest["noise"], rest["memory"]))
        assert p is process
        assert t.shape == t_next.shape == ()
        return x_t + 1, len(calls)

    result = sample(trained(process), process, x, grid, step=step, cond="c", noise=lambda i, x_t: x_t * 0 + i)
    assert [(t, t_next, cond, memory) for t, t_next, cond, _, memory in calls] == [
        (1.0, 0.5, "c", None),
        (0.5, 0.25, "c", 1),
        (0.25, 0.0, "c", 2),
    ]
    assert [float(noise[0, 0]) for *_, noise, _ in calls] == [0, 1, 2]
    assert torch.equal(result, x + 3)
    assert torch.equal(x, torch.zeros(2, 3))


def test_frames_tell_the_whole_way() -> None:
    process = VariancePreserving.cosine()
    denoiser, grid, x_t = trained(process), timestep_grid(process, 5), torch.randn(2, 3, dtype=torch.float64)
    frames = list(sample_frames(denoiser, process, x_t, grid, step=heun_step))
    assert [frame.step for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [float(frame.t) for frame in frames] == grid.tolist()
    assert frames[0].x0_hat is None
    assert torch.equal(frames[0].x_t, x_t)
    for before, frame in itertools.pairwise(frames):
        assert frame.x0_hat is not None
        torch.testing.assert_close(frame.x0_hat, denoiser(before.x_t, before.t.expand(2)))
    assert torch.equal(frames[-1].x_t, sample(denoiser, process, x_t, grid, step=heun_step))


def test_callback_sees_every_step() -> None:
    process, seen = VariancePreserving.cosine(), []
    x_t = torch.randn(1, 2)
    x0 = sample(
        trained(process), process, x_t, timestep_grid(process, 3), step=ddim_step,
        callback=lambda i, t, x, x0_hat: seen.append((i, float(t), x, x0_hat)),
    )  # fmt: skip
    assert [(i, t) for i, t, *_ in seen] == [(1, 667.0), (2, 333.0), (3, 0.0)]
    assert torch.equal(seen[-1][2], x0)
    assert torch.equal(seen[-1][3], x0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_network_passes_are_counted_right(name: str) -> None:
    process, calls = VariancePreserving.cosine(), []

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        calls.append(t)
        return x_t * 0

    sampler = SAMPLERS[name]
    sample(denoiser, process, torch.randn(1, 2), timestep_grid(process, 7), step=sampler.step, noise=lambda i, x: x)
    assert len(calls) == sampler.network_passes(7)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_needs_noise_exactly_if_it_says_so(name: str) -> None:
    process, sampler, x_t = RectifiedFlow(), SAMPLERS[name], torch.randn(1, 2)
    if sampler.needs_noise:
        with pytest.raises(ValueError, match="stochastic"):
            sample(trained(process), process, x_t, timestep_grid(process, 4), step=sampler.step)
    else:
        sample(trained(process), process, x_t, timestep_grid(process, 4), step=sampler.step)


def test_no_gradient_is_kept() -> None:
    process, weight = RectifiedFlow(), torch.ones(1, requires_grad=True)
    x0 = sample(lambda x, t, c: x * weight, process, torch.randn(1, 2), timestep_grid(process, 3))
    assert not x0.requires_grad
    assert torch.is_grad_enabled()


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
    grid = timestep_grid(VariancePreserving.linear(), 10)
    with pytest.raises(UserError, match="use one process"):
        sample(trained(VariancePreserving.cosine()), VariancePreserving.linear(), torch.randn(1, 2), grid)


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


@pytest.mark.parametrize("grid", [[5.0], [[5.0, 0.0]], [5.0, 5.0, 0.0], [5.0, 6.0, 0.0]])
def test_a_grid_that_does_not_fall_is_an_error(grid: list[Any]) -> None:
    process = VariancePreserving.linear()
    with pytest.raises(ValueError, match="grid"):
        sample(trained(process), process, torch.randn(1, 2), torch.tensor(grid), step=ddpm_step)
