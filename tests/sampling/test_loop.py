"""The loop: what it hands to steps, what it streams, what it refuses, and that pictures do not see their neighbours."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.process import Process, RectifiedFlow, VariancePreserving
from calotype.sampling import (
    SAMPLERS,
    ddim_step,
    dpmpp_2m_step,
    heun_step,
    sample,
    sample_frames,
    timestep_grid,
)
from tests.sampling.oracles import PROCESSES, assert_close, trained


def noise_of(seeds: Tensor) -> Any:
    def draw(i: int, x_t: Tensor) -> Tensor:
        rows = [
            torch.randn(x_t.shape[1:], generator=torch.Generator().manual_seed(s * 1000 + i)) for s in seeds.tolist()
        ]
        return torch.stack(rows)

    return draw


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
        assert_close(frame.x0_hat, denoiser(before.x_t, before.t.expand(2)))
    assert torch.equal(frames[-1].x_t, sample(denoiser, process, x_t, grid, step=heun_step))


def test_levels_are_in_double_precision_whatever_the_grid() -> None:
    process, told = VariancePreserving.angle(), []

    def denoiser(x_t: Tensor, t: Tensor, cond: object) -> Tensor:
        told.append(t.dtype)
        return x_t

    for grid in (timestep_grid(process, 3).float(), timestep_grid(process, 3).tolist()):
        frames = list(sample_frames(denoiser, process, torch.randn(1, 2), grid))  # type: ignore[arg-type]
        assert {frame.t.dtype for frame in frames} == {torch.float64} == set(told)
        assert float(frames[0].t) == pytest.approx(process.t_max)


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


def test_a_frame_cannot_be_altered() -> None:
    process = RectifiedFlow()
    frame = next(iter(sample_frames(trained(process), process, torch.randn(1, 2), timestep_grid(process, 3))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.step = 3  # type: ignore[misc]


def test_the_default_step_is_dpmpp_2m() -> None:
    process, x_T = VariancePreserving.cosine(), torch.randn(2, 3, dtype=torch.float64)
    grid = timestep_grid(process, 4)
    expected = sample(trained(process), process, x_T, grid, step=dpmpp_2m_step)
    assert torch.equal(sample(trained(process), process, x_T, grid), expected)
    assert torch.equal(list(sample_frames(trained(process), process, x_T, grid))[-1].x_t, expected)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_a_picture_is_the_same_alone_and_in_a_batch(process: Process, name: str) -> None:
    sampler, seeds = SAMPLERS[name], torch.arange(6)
    x_t = process.prior((6, 2, 3, 3), torch.randn(6, 2, 3, 3))
    grid = timestep_grid(process, 5, sampler.grid)
    together = sample(trained(process), process, x_t, grid, step=sampler.step, noise=noise_of(seeds))
    alone = sample(trained(process), process, x_t[4:5], grid, step=sampler.step, noise=noise_of(seeds[4:5]))
    assert_close(together[4:5], alone, rtol=1e-5, atol=1e-5)
