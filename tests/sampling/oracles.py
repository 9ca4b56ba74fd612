"""Data whose denoiser has a closed form, and states that carry their whole distribution: no sampling error is left.

Three kinds: a normal number, for the orders of the solvers; two correlated normal numbers behind a network that answers
exactly in any parameterisation, for every combination of parts; a set of 64 pictures, for data that is not Gaussian.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calotype.core.types import Denoiser, Step
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.sampling import SAMPLERS, sample

PROCESSES: dict[str, Process] = {
    "linear": VariancePreserving.linear(),
    "scaled-linear": VariancePreserving.scaled_linear(),
    "cosine": VariancePreserving.cosine(),
    "angle": VariancePreserving.angle(),
    "flow": RectifiedFlow(),
    "exploding": VarianceExploding(),
}
COUNTS = (40, 80, 160, 320)
SECOND_ORDER = ("dpm++2m", "dpm++2m-sde", "heun")


def assert_close(found: Tensor, expected: Tensor, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    """torch.testing.assert_close, without the second that its first call takes to import sympy."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert torch.allclose(found, expected, rtol, atol), f"off by {float((found - expected).abs().max()):g}"


@functools.cache
def remembering(process: Process) -> Process:
    """The same process, which works every level out once: tests ask for the same few again and again."""
    quick, known = copy.copy(process), {}

    def once(name: str, rate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def look_up(t: Tensor) -> Tensor:
            first = float(t if t.ndim == 0 else t[0])
            if t.numel() > 1 and bool((t != first).any()):
                return rate(t)
            if (name, first) not in known:
                known[name, first] = rate(torch.tensor(first, dtype=torch.float64))
            return known[name, first] if t.ndim == 0 else known[name, first].expand(t.shape)

        return look_up

    for name in ("signal_rate", "noise_rate", "log_snr", "network_time", "input_scale"):
        setattr(quick, name, once(name, getattr(process, name)))
    return quick


@dataclass(frozen=True)
class ExactDenoiser:
    """D(x_t, t) = mean + a d^2 / (a^2 d^2 + b^2) (x_t - a mean), the expectation of x0 given x_t; x0 ~ N(mean, d^2)."""

    process: Process
    mean: float = 0.0
    deviation: float = 0.5

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert t.shape == (len(x_t),)
        a: Any = self.process.signal_rate(t)
        b: Any = self.process.noise_rate(t)
        if len(t) == 1:
            a, b = float(a), float(b)  # the orders of the solvers live in this branch, in a third of the time
        else:
            shape = (-1, *([1] * (x_t.ndim - 1)))
            a, b = a.reshape(shape), b.reshape(shape)
        gain = a * self.deviation**2 / (a**2 * self.deviation**2 + b**2)
        return (self.mean + gain * (x_t - a * self.mean)).to(x_t.dtype)

    def marginal(self, t: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of q(x_t)."""
        a, b = float(self.process.signal_rate(t)), float(self.process.noise_rate(t))
        return a * self.mean, math.sqrt(a**2 * self.deviation**2 + b**2)


class Trained(ExactDenoiser):
    """An exact denoiser that says what it was trained on."""

    t_max: float = 0.0


def trained(process: Process, t_max: float | None = None) -> Trained:
    denoiser = Trained(process)
    object.__setattr__(denoiser, "t_max", process.t_max if t_max is None else t_max)
    return denoiser


def take(
    step: Step,
    process: Process,
    x_t: Tensor,
    t: float,
    t_next: float,
    noise: Tensor | None = None,
    memory: object = None,
) -> tuple[Tensor, object]:
    """One step of the exact denoiser of N(.3, .5^2)."""
    denoiser = ExactDenoiser(process, mean=0.3)
    ends = torch.tensor(t, dtype=torch.float64), torch.tensor(t_next, dtype=torch.float64)
    return step(denoiser, process, x_t, *ends, cond=None, noise=noise, memory=memory)


def propagated_deviation(step: Step, denoiser: ExactDenoiser, grid: Tensor) -> float:
    """The exact standard deviation of x at the end of `grid`, started from q(x_t) at its first level.

    With mean 0 every step is linear, so x_t is carried as its coefficients on independent unit noises: column 0 the
    start's, column i + 1 the fresh noise of step i. No sampling error, only the solver's.
    """
    x = torch.zeros(1, len(grid), dtype=torch.float64)
    x[0, 0] = denoiser.marginal(grid[0])[1]
    units = torch.eye(len(grid), dtype=torch.float64)
    memory: Any = None
    for i, (t, t_next) in enumerate(itertools.pairwise(grid)):
        noise = units[i + 1 : i + 2]
        x, memory = step(denoiser, denoiser.process, x, t, t_next, cond=None, noise=noise, memory=memory)
    return float(x.square().sum().sqrt())


def log_snr_grid(process: Process, num_steps: int, start: float = 0.98, stop: float = 0.02) -> Tensor:
    """Levels evenly in log_snr between two shares of the range, away from both its ends."""
    ends = process.log_snr(torch.tensor([start, stop], dtype=torch.float64) * process.t_max)
    even = torch.linspace(float(ends[0]), float(ends[1]), num_steps + 1, dtype=torch.float64)
    return process.t_from_log_snr(even)


def errors(step: Step, process: Process, counts: tuple[int, ...]) -> list[float]:
    """Relative error of the standard deviation, for each number of steps.

    Data N(0, 0.5^2), from the exact q(x_t) at t = .98 of the range to .02 of it, evenly in log_snr.
    """
    denoiser = ExactDenoiser(remembering(process))
    found = []
    for num_steps in counts:
        grid = log_snr_grid(process, num_steps)
        true = denoiser.marginal(grid[-1])[1]
        found.append(abs(propagated_deviation(step, denoiser, grid) / true - 1))
    return found


def measured_orders() -> dict[tuple[str, str], list[float]]:
    """`errors` at COUNTS for every (family, sampler)."""
    return {
        (family, name): errors(sampler.step, process, COUNTS)
        for family, process in PROCESSES.items()
        for name, sampler in SAMPLERS.items()
    }


def slope(coarse: float, fine: float) -> float:
    """The order at which an error falls when the number of steps doubles."""
    return math.log2(coarse / fine)


@dataclass(frozen=True)
class Gaussian:
    """x0 ~ N(mean, covariance) in two dimensions that are correlated and of unlike size."""

    mean: Tensor
    covariance: Tensor

    def marginal(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (2,) and covariance (2, 2) of a x0 + b eps."""
        return a * self.mean, a**2 * self.covariance + b**2 * torch.eye(2, dtype=torch.float64)

    def expected_x0(self, x_t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """E[x0 given x_t] = mean + a S (a^2 S + b^2 I)^-1 (x_t - a mean), rows (b, 2)."""
        mean, covariance = self.marginal(a, b)
        gain = a * torch.linalg.solve(covariance, self.covariance)  # both symmetric and commuting
        return self.mean + (x_t - mean) @ gain


DATA = Gaussian(
    torch.tensor([0.3, -0.8], dtype=torch.float64), torch.tensor([[0.6, 0.35], [0.35, 0.4]], dtype=torch.float64)
)


def exact_network(data: Gaussian, process: Process, parameterization: str) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """A network that knows `data` and answers in `parameterization`, from nothing but its scaled input and its time."""

    def network(x_in: Tensor, time: Tensor, cond: Any) -> Tensor:
        t = level_of(process, float(time[0]))
        a, b = process.signal_rate(t), process.noise_rate(t)
        x_t = x_in * (torch.sqrt(1 + b**2) if isinstance(process, VarianceExploding) else 1)
        x0 = data.expected_x0(x_t, a, b)
        eps = (x_t - a * x0) / b
        return {
            "eps": eps,
            "x0": x0,
            "v": a * eps - b * x0,
            "flow": eps - x0,
            "edm": (b * x0 - a * eps) / torch.sqrt(a**2 + b**2),
        }[parameterization]

    return network


def level_of(process: Process, time: float) -> Tensor:
    """The t behind what a network is told: t - 1 for tables, ln(t)/4 for exploding variance, 1000 t otherwise."""
    if isinstance(process, VarianceExploding):
        t = math.exp(4 * time)
    else:
        t = time / 1000 if process.num_train_steps is None else time + 1
    return torch.tensor(min(t, process.t_max), dtype=torch.float64)


def carried(step: Step, denoiser: Denoiser, process: Process, grid: Tensor, data: Gaussian) -> tuple[Tensor, Tensor]:
    """Mean (2,) and covariance (2, 2) of what `sample` makes along `grid`, started from q(x_t) at its first level.

    Steps are affine in x_t and in the fresh noise, so it is enough to follow one path without any noise (row 0) and,
    for each independent unit noise, the path that it alone pushes away from the first.
    """
    mean, covariance = data.marginal(process.signal_rate(grid[0]), process.noise_rate(grid[0]))
    x_T = mean.repeat(1 + 2 * len(grid), 1)
    x_T[1:3] += torch.linalg.cholesky(covariance).T

    def noise(i: int, x_t: Tensor) -> Tensor:
        unit = torch.zeros_like(x_t)
        unit[3 + 2 * i : 5 + 2 * i] = torch.eye(2, dtype=torch.float64)
        return unit

    x0 = sample(denoiser, process, x_T, grid, step=step, noise=noise)
    away = x0[1:] - x0[0]
    return x0[0], away.T @ away


@dataclass(frozen=True)
class Pictures:
    """The exact denoiser of a finite set of pictures (n, ...): their mean, weighted by how likely each became x_t."""

    process: Process
    pictures: Tensor

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        a, b = self.process.signal_rate(t)[0], self.process.noise_rate(t)[0]
        rows, pictures = x_t.flatten(1), self.pictures.flatten(1)
        weights = torch.softmax(-(torch.cdist(rows, a * pictures) ** 2) / (2 * b**2), dim=1)
        return (weights @ pictures).reshape(x_t.shape)

    def distance(self, x0: Tensor) -> Tensor:
        """How far each row is from the nearest picture, (b,)."""
        return torch.cdist(x0.flatten(1), self.pictures.flatten(1)).min(dim=1).values
