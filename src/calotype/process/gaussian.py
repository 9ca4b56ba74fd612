"""The forward process x_t = signal_rate(t) x0 + noise_rate(t) eps: three families, one interface, no weights."""

from abc import ABC, abstractmethod
from typing import Any, Self

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
from calotype.process.terminal import check_prior


class Process(ABC):
    """Owner of (signal_rate, noise_rate). Training and every sampler read them here and nowhere else.

    t = 0 is clean and `t_max` the noisiest level; `t_min` is the least noisy level training visits. Rates take t of any
    dtype and shape and return float64 of that shape. `num_train_steps` is T for tables, None for continuous levels.
    `default_grid` is the kind of grid and `default_density` the density of training levels that suit the family.
    """

    t_max: float
    t_min: float
    num_train_steps: int | None = None
    default_grid: str = "trailing"
    default_density: str = "uniform"

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
        """The inverse of `log_snr`, t_max for anything noisier."""

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
        """x_T ~ the limit of q(x_T) that forgets x0 (eq. 12), from standard normal `noise` of this shape.

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
        settings = self.config()
        settings.pop("kind")
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"


class VariancePreserving(Process):
    """a^2 + b^2 = 1 (Ho et al. 2020; Song et al. 2021). Tables: t = 0, 1 ... T; `.angle()`: t = noise_rate < 1."""

    def __init__(self, schedule: NoiseSchedule | AngleSchedule) -> None:
        self.schedule = schedule
        self.t_min, self.t_max, self.num_train_steps = schedule.t_min, schedule.t_max, schedule.num_train_steps

    @classmethod
    def linear(
        cls,
        num_train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        zero_terminal_snr: bool = False,
    ) -> Self:
        """beta from start to end, evenly (eq. 3). The defaults belong to T = 1000: scale them by 1000/T."""
        betas = linear_betas(num_train_steps, beta_start, beta_end)
        return cls._table("linear", betas, zero_terminal_snr, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def scaled_linear(
        cls,
        num_train_steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        zero_terminal_snr: bool = False,
    ) -> Self:
        """sqrt(beta) evenly (eq. 4), the schedule of latent diffusion (Rombach et al. 2022)."""
        betas = scaled_linear_betas(num_train_steps, beta_start, beta_end)
        return cls._table("scaled-linear", betas, zero_terminal_snr, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def cosine(
        cls,
        num_train_steps: int = 1000,
        offset: float = 0.008,
        beta_max: float = 0.999,
        zero_terminal_snr: bool = False,
    ) -> Self:
        """alpha_bar along a squared cosine (eq. 5; Nichol & Dhariwal 2021)."""
        betas = cosine_betas(num_train_steps, offset, beta_max)
        return cls._table("cosine", betas, zero_terminal_snr, offset=offset, beta_max=beta_max)

    @classmethod
    def angle(cls, t_max: float = 0.999) -> Self:
        """The seed's levels (eq. 8): t is noise_rate in [0, t_max], continuous; trained up to and started at t_max."""
        if not AngleSchedule.t_min < t_max < 1:
            raise UserError(f"t_max is {t_max!r}", "the angle's levels end above 0.002 and below 1, e.g. at 0.999")
        return cls(AngleSchedule(float(t_max)))

    @classmethod
    def _table(cls, name: str, betas: Tensor, zero_terminal_snr: bool, **settings: float) -> Self:
        named = {"schedule": name, "num_train_steps": len(betas), **settings, "zero_terminal_snr": zero_terminal_snr}
        return cls(NoiseSchedule.from_betas(betas, named, zero_terminal_snr=zero_terminal_snr))

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """signal_rate^2 = sigmoid(2 log_snr), the product of 1 - beta up to t (eq. 6)."""
        return torch.sigmoid(2 * self.log_snr(t))

    def signal_rate(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar)."""
        return self.alpha_bar(t).sqrt()

    def noise_rate(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar) = sqrt(sigmoid(-2 log_snr))."""
        return torch.sigmoid(-2 * self.log_snr(t)).sqrt()

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.schedule.t_from_log_snr(log_snr)

    def network_time(self, t: Tensor) -> Tensor:
        """Tables: t - 1, diffusers' timestep. Angle: 1000 t."""
        t = as_float64(t)
        return t * 1000 if self.num_train_steps is None else t - 1

    def config(self) -> dict[str, Any]:
        return {"kind": "variance-preserving", **self.schedule.settings}


class RectifiedFlow(Process):
    """The straight path a = 1 - t, b = t on [0, 1] (eq. 9; Liu et al. 2023; Lipman et al. 2023)."""

    t_max = 1.0
    t_min = 0.001

    def signal_rate(self, t: Tensor) -> Tensor:
        return 1 - self.noise_rate(t)

    def noise_rate(self, t: Tensor) -> Tensor:
        return within(as_float64(t), self.t_max)

    def log_snr(self, t: Tensor) -> Tensor:
        t = self.noise_rate(t)
        return torch.log1p(-t) - torch.log(t)

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-as_float64(log_snr))

    def network_time(self, t: Tensor) -> Tensor:
        """1000 t."""
        return as_float64(t) * 1000

    def config(self) -> dict[str, Any]:
        return {"kind": "rectified-flow"}


class VarianceExploding(Process):
    """a = 1, b = sigma = t up to sigma_max (eq. 10; Song et al. 2021; Karras et al. 2022). Prior: N(0, t_max^2 I)."""

    default_grid = "karras"
    default_density = "log-normal"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"sigma runs from {sigma_min!r} to {sigma_max!r}", "it must satisfy 0 < min < max")
        self.t_min, self.t_max = float(sigma_min), float(sigma_max)

    def signal_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(self.noise_rate(t))

    def noise_rate(self, t: Tensor) -> Tensor:
        return within(as_float64(t), self.t_max)

    def log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(self.noise_rate(t))

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
