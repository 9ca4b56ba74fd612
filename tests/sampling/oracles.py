"""Exact denoisers of Gaussian data N(mean, deviation^2), and a state that carries its covariance with it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calotype.core.types import Step
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving

PROCESSES: dict[str, Process] = {
    "linear": VariancePreserving.linear(),
    "cosine": VariancePreserving.cosine(),
    "angle": VariancePreserving.angle(),
    "flow": RectifiedFlow(),
    "exploding": VarianceExploding(),
}


@dataclass(frozen=True)
class ExactDenoiser:
    """D(x_t, t) = mean + a d^2 / (a^2 d^2 + b^2) (x_t - a mean), the expectation of x0 given x_t; counts its calls."""

    process: Process
    mean: float = 0.0
    deviation: float = 0.5

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert t.shape == (len(x_t),)
        shape = (-1, *([1] * (x_t.ndim - 1)))
        a, b = self.process.signal_rate(t).reshape(shape), self.process.noise_rate(t).reshape(shape)
        gain = a * self.deviation**2 / (a**2 * self.deviation**2 + b**2)
        return self.mean + gain * (x_t - a * self.mean)

    def marginal(self, t: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of q(x_t)."""
        a, b = float(self.process.signal_rate(t)), float(self.process.noise_rate(t))
        return a * self.mean, math.sqrt(a**2 * self.deviation**2 + b**2)


def propagated_deviation(step: Step, denoiser: ExactDenoiser, grid: Tensor) -> float:
    """The exact standard deviation of x at the end of `grid`, started from q(x_t) at its first level.

    With mean 0 every step is linear, so x_t is carried as its coefficients on independent unit noises: column 0 the
    start's, column i + 1 the fresh noise of step i. No sampling error, only the solver's.
    """
    x = torch.zeros(1, len(grid), dtype=torch.float64)
    x[0, 0] = denoiser.marginal(grid[0])[1]
    memory: Any = None
    for i in range(len(grid) - 1):
        noise = torch.zeros_like(x)
        noise[0, i + 1] = 1
        x, memory = step(denoiser, denoiser.process, x, grid[i], grid[i + 1], cond=None, noise=noise, memory=memory)
    return float(x.square().sum().sqrt())


def log_snr_grid(process: Process, num_steps: int, start: float = 0.98, stop: float = 0.02) -> Tensor:
    """Levels evenly in log_snr between two shares of the range, away from both its ends."""
    ends = process.log_snr(torch.tensor([start, stop], dtype=torch.float64) * process.t_max)
    even = torch.linspace(float(ends[0]), float(ends[1]), num_steps + 1, dtype=torch.float64)
    return process.t_from_log_snr(even)
