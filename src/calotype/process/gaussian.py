"""The forward process x_t = signal_rate(t) x0 + noise_rate(t) eps: three families, one interface, no weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process.schedule import (
    AngleSchedule,
    NoiseSchedule,
    as_float64,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    within,
)

PRIOR_SIGNAL_LIMIT = 0.1


class Process(ABC):
    """Owner of (signal_rate, noise_rate). Training and every sampler read them here and nowhere else.

    t = 0 is clean and `t_max` the noisiest level; `t_min` is the least noisy level training visits. Rates take t of any
    dtype and shape and return float64 of that shape. `num_train_steps` is T for tables, None for continuous levels.
    `default_grid` is the kind of grid that suits the family.
    """

    t_max: float
    t_min: float
    num_train_steps: int | None = None
    default_grid: str = "trailing"

    @abstractmethod
    def signal_rate(self, t: Tensor) -> Tensor:
        """a(t), shaped like t."""

    @abstractmethod
    def noise_rate(self, t: Tensor) -> Tensor:
        """b(t), shaped like t."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """ln(a(t) / b(t)), strictly decreasing; +inf at t = 0."""

    @abstractmethod
    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """The number a network is told instead of t, shaped like t."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values from which `process_from_config` makes this process again."""

    def input_scale(self, t: Tensor) -> Tensor:
        """Factor that brings x_t to about unit variance for the network (x0 has unit variance), shaped like t."""
        return torch.ones_like(as_float64(t))

    def prior(self, shape: tuple[int, ...], noise: Tensor) -> Tensor:
        """x_T ~ the limit of q(x_T) that forgets x0, from standard normal `noise` of this shape.

        Raises UserError if the process does not forget: at t_max more than 0.1 of the signal is left.
        """
        if tuple(noise.shape) != tuple(shape):
            raise ValueError(f"noise has shape {tuple(noise.shape)}, the prior was asked for {tuple(shape)}")
        check_prior(self)
        return noise * self.prior_scale

    @property
    def prior_scale(self) -> float:
        """Standard deviation of the prior."""
        return 1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self.config() == other.config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        values = self.config()
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in values.items() if k != 'kind')})"


def check_prior(process: Any) -> None:
    """Refuse a start from the prior that q(x_T) has not reached, naming both numbers.

    The signal's share is a / sqrt(a^2 + b^2), which is signal_rate for variance-preserving processes.
    """
    log_snr = process.log_snr(torch.tensor(process.t_max, dtype=torch.float64))
    left = float(torch.sigmoid(2 * log_snr).sqrt())
    if left > PRIOR_SIGNAL_LIMIT:
        raise UserError(
            f"the process keeps signal_rate {left:.3g} at its noisiest t = {process.t_max:g}, "
            f"but starting from pure noise needs at most {PRIOR_SIGNAL_LIMIT:g}",
            "train with more noise (betas belong to T: scale them by 1000/T) or start from a noised picture",
        )


class VariancePreserving(Process):
    """a^2 + b^2 = 1 (Ho et al. 2020; Song et al. 2021). Tables: t = 0, 1 ... T; `.angle()`: t = noise_rate < 1."""

    def __init__(self, schedule: NoiseSchedule | AngleSchedule) -> None:
        self.schedule = schedule
        if isinstance(schedule, NoiseSchedule):
            self.num_train_steps = schedule.num_train_steps
            self.t_max, self.t_min = float(schedule.num_train_steps), 1.0
        else:
            self.t_max, self.t_min = schedule.t_max, min(0.002, schedule.t_max)

    @classmethod
    def linear(
        cls,
        num_train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        zero_terminal_snr: bool = False,
    ) -> VariancePreserving:
        """beta from start to end, evenly. The defaults belong to T = 1000; other T want betas scaled by 1000/T."""
        betas = linear_betas(num_train_steps, beta_start, beta_end)
        return cls._table("linear", betas, zero_terminal_snr, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def scaled_linear(
        cls,
        num_train_steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        zero_terminal_snr: bool = False,
    ) -> VariancePreserving:
        """sqrt(beta) evenly, the schedule of latent diffusion (Rombach et al. 2022)."""
        betas = scaled_linear_betas(num_train_steps, beta_start, beta_end)
        return cls._table("scaled-linear", betas, zero_terminal_snr, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def cosine(
        cls,
        num_train_steps: int = 1000,
        offset: float = 0.008,
        beta_max: float = 0.999,
        zero_terminal_snr: bool = False,
    ) -> VariancePreserving:
        """alpha_bar along a squared cosine (Nichol & Dhariwal 2021)."""
        betas = cosine_betas(num_train_steps, offset, beta_max)
        return cls._table("cosine", betas, zero_terminal_snr, offset=offset, beta_max=beta_max)

    @classmethod
    def angle(cls, t_max: float = 0.999) -> VariancePreserving:
        """The seed's levels: t is noise_rate, continuous on [0, t_max]; trained up to, and started at, t_max < 1."""
        if not 0 < t_max < 1:
            raise UserError(f"t_max is {t_max!r}", "the angle's levels end below 1, e.g. at 0.999")
        return cls(AngleSchedule(float(t_max)))

    @classmethod
    def _table(cls, name: str, betas: Tensor, zero_terminal_snr: bool, **settings: Any) -> VariancePreserving:
        settings = {"schedule": name, "num_train_steps": len(betas), **settings, "zero_terminal_snr": zero_terminal_snr}
        return cls(NoiseSchedule.from_betas(betas, settings, zero_terminal_snr=zero_terminal_snr))

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t)

    def signal_rate(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar) = sqrt(sigmoid(2 log_snr))."""
        return torch.sigmoid(2 * self.log_snr(t)).sqrt()

    def noise_rate(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar) = sqrt(sigmoid(-2 log_snr))."""
        return torch.sigmoid(-2 * self.log_snr(t)).sqrt()

    def alpha_bar(self, t: Tensor) -> Tensor:
        """signal_rate^2, the product of 1 - beta up to t."""
        return torch.sigmoid(2 * self.log_snr(t))

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.schedule.t_from_log_snr(log_snr)

    def network_time(self, t: Tensor) -> Tensor:
        """Tables: t - 1, diffusers' timestep. Angle: 1000 t."""
        t = as_float64(t)
        return t * 1000 if self.num_train_steps is None else t - 1

    def config(self) -> dict[str, Any]:
        if isinstance(self.schedule, AngleSchedule):
            return {"kind": "variance-preserving", "schedule": "angle", "t_max": self.t_max}
        return {"kind": "variance-preserving", **self.schedule.settings}


class RectifiedFlow(Process):
    """The straight path a = 1 - t, b = t on [0, 1] (Liu et al. 2023; Lipman et al. 2023)."""

    t_max = 1.0
    t_min = 0.001

    def signal_rate(self, t: Tensor) -> Tensor:
        return 1 - within(as_float64(t), self.t_max)

    def noise_rate(self, t: Tensor) -> Tensor:
        return within(as_float64(t), self.t_max)

    def log_snr(self, t: Tensor) -> Tensor:
        t = within(as_float64(t), self.t_max)
        return torch.log1p(-t) - torch.log(t)

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-as_float64(log_snr))

    def network_time(self, t: Tensor) -> Tensor:
        """1000 t."""
        return as_float64(t) * 1000

    def config(self) -> dict[str, Any]:
        return {"kind": "rectified-flow"}


class VarianceExploding(Process):
    """a = 1, b = sigma = t on [0, sigma_max] (Song et al. 2021; Karras et al. 2022); prior N(0, sigma_max^2 I)."""

    default_grid = "karras"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"sigma runs from {sigma_min!r} to {sigma_max!r}", "it must satisfy 0 < min < max")
        self.t_min, self.t_max = float(sigma_min), float(sigma_max)

    def signal_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(within(as_float64(t), self.t_max))

    def noise_rate(self, t: Tensor) -> Tensor:
        return within(as_float64(t), self.t_max)

    def log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(within(as_float64(t), self.t_max))

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-as_float64(log_snr)).clamp(max=self.t_max)

    def network_time(self, t: Tensor) -> Tensor:
        """ln(sigma) / 4, EDM's c_noise."""
        return torch.log(as_float64(t)) / 4

    def input_scale(self, t: Tensor) -> Tensor:
        """1 / sqrt(1 + sigma^2), EDM's c_in for unit-variance x0."""
        return torch.rsqrt(1 + as_float64(t) ** 2)

    @property
    def prior_scale(self) -> float:
        return self.t_max

    def config(self) -> dict[str, Any]:
        return {"kind": "variance-exploding", "sigma_min": self.t_min, "sigma_max": self.t_max}
