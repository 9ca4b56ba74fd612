"""The only sampling loop: a step function carried along a grid."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.types import Denoiser, Step, innermost
from calotype.process import Process, check_prior
from calotype.sampling.dpm_solver import dpmpp_2m_step

NoiseSource = Callable[[int, Tensor], Tensor]
Callback = Callable[[int, Tensor, Tensor, Tensor], None]
ROUNDING = 1e-6  # a grid that came through float32 still starts at t_max


@dataclass(frozen=True)
class Frame:
    """The state after `step` steps: x_t at level t, and the x0_hat the last step saw (None before the first)."""

    step: int
    t: Tensor
    x_t: Tensor
    x0_hat: Tensor | None


def sample(
    denoiser: Denoiser,
    process: Any,
    x_T: Tensor,
    grid: Tensor,
    *,
    step: Step = dpmpp_2m_step,
    cond: Any = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    from_prior: bool | None = None,
) -> Tensor:
    """x0 (b, ...) from x_T (b, ...) at level grid[0], down the strictly decreasing `grid` to its last level.

    noise(i, x_t) gives the fresh noise of step i = 0 ... K - 1; a stochastic step without it raises ValueError, and so
    does a grid that does not fall. callback(i, t, x_t, x0_hat) is called after each step with the fields of its frame,
    i = 1 ... K. `from_prior` says that x_T forgot its x0; by default so, if the grid starts at t_max. Raises UserError
    if the start lies outside the range the denoiser was trained on, if its process is another one, if the prior is not
    reached at t_max, and if the denoiser answers in another shape or with NaN or infinity.
    """
    frames = sample_frames(denoiser, process, x_T, grid, step=step, cond=cond, noise=noise, from_prior=from_prior)
    x_t = x_T
    for frame in frames:
        x_t = frame.x_t
        if callback is not None and frame.x0_hat is not None:
            callback(frame.step, frame.t, frame.x_t, frame.x0_hat)
    return x_t


def sample_frames(
    denoiser: Denoiser,
    process: Any,
    x_T: Tensor,
    grid: Tensor,
    *,
    step: Step = dpmpp_2m_step,
    cond: Any = None,
    noise: NoiseSource | None = None,
    from_prior: bool | None = None,
) -> Iterator[Frame]:
    """The loop of `sample` as a stream of K + 1 frames: the start, then the state after every step.

    The checks of `sample` are made at the call, before the first frame is asked for.
    """
    grid = torch.as_tensor(grid, dtype=torch.float64).cpu()
    _check_grid(grid)
    _check_start(denoiser, process, grid, from_prior)
    return _frames(_Watched(denoiser, len(grid) - 1), process, x_T, grid, step, cond, noise)


def _frames(
    denoiser: "_Watched", process: Any, x_t: Tensor, grid: Tensor, step: Step, cond: Any, noise: NoiseSource | None
) -> Iterator[Frame]:
    memory: Any = None
    yield Frame(0, grid[0], x_t, None)
    for i in range(denoiser.num_steps):
        denoiser.begin(i + 1)
        with torch.no_grad():
            fresh = None if noise is None else noise(i, x_t)
            x_t, memory = step(denoiser, process, x_t, grid[i], grid[i + 1], cond=cond, noise=fresh, memory=memory)
        yield Frame(i + 1, grid[i + 1], x_t, denoiser.x0_hat)


class _Watched:
    """A denoiser that remembers the first x0_hat of a step, so that any step function can be filmed, and refuses
    answers that would end in a broken picture.
    """

    x0_hat: Tensor | None
    step: int

    def __init__(self, denoiser: Denoiser, num_steps: int) -> None:
        self.denoiser, self.num_steps = denoiser, num_steps

    def begin(self, step: int) -> None:
        """Step number 1 ... num_steps is about to be taken."""
        self.step, self.x0_hat = step, None

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        x0_hat = self.denoiser(x_t, t, cond)
        if x0_hat.shape != x_t.shape:
            raise UserError(
                f"the denoiser gave shape {tuple(x0_hat.shape)} for x_t of shape {tuple(x_t.shape)}",
                "it must give an estimate of x0, shaped like x_t",
            )
        if not bool(x0_hat.isfinite().all()):
            source = "the denoiser gave" if bool(x_t.isfinite().all()) else "the denoiser was given"
            rows = [row for row, values in enumerate(x0_hat) if not bool(values.isfinite().all())]
            raise UserError(
                f"{source} NaN or infinity at t = {t.max():g} (step {self.step} of {self.num_steps}), "
                f"in rows {rows} of {len(x_t)}",
                "look at its weights and conditions, or try float32",
            )
        self.x0_hat = x0_hat if self.x0_hat is None else self.x0_hat
        return x0_hat


def _check_grid(grid: Tensor) -> None:
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"a grid is a list of at least 2 levels, not a tensor of shape {tuple(grid.shape)}")
    if not bool((grid.diff() < 0).all()):
        raise ValueError("the grid must be strictly decreasing")


def _check_start(denoiser: Any, process: Any, grid: Tensor, from_prior: bool | None) -> None:
    """The refusals that spare static: a level never trained, another process, a prior that is not reached."""
    start = float(grid[0])
    denoiser = innermost(denoiser)
    trained_on = getattr(denoiser, "process", None)
    if isinstance(trained_on, Process) and isinstance(process, Process) and trained_on != process:
        raise UserError(
            f"the denoiser was trained on {trained_on!r}, the sampler steps by {process!r}", "use one process"
        )
    t_max = float(process.t_max)
    highest = min(t_max, float(getattr(denoiser, "t_max", t_max)))
    if start > highest * (1 + ROUNDING):
        raise UserError(
            f"sampling would start at t = {start:g}, but the model was trained up to t = {highest:g}",
            "start the grid inside the trained range",
        )
    if from_prior or (from_prior is None and math.isclose(start, t_max, rel_tol=ROUNDING)):
        check_prior(process)
