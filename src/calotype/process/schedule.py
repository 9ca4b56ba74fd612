"""Noise tables and curves of the variance-preserving family: log_snr as a function of t and its inverse, float64."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from calotype.core.errors import UserError


def as_float64(t: Tensor | float) -> Tensor:
    """t in float64 on its own device; devices that lack float64 are served from the CPU."""
    t = torch.as_tensor(t)
    return (t.cpu() if t.is_mps else t).to(torch.float64)


def within(t: Tensor, t_max: float) -> Tensor:
    """t itself if 0 <= t <= t_max, up to float32's rounding of t_max; ValueError with both numbers otherwise.

    On an accelerator the check would stall the queue of kernels, so there a bad t becomes NaN, which nobody overlooks.
    """
    bad = t != t.clamp(0, t_max * (1 + 1e-6))
    if not t.is_cpu:
        return torch.where(bad, torch.nan, t.clamp(max=t_max))
    if bad.any():
        raise ValueError(f"t = {t[bad][0].item():g} lies outside the process's range 0 ... {t_max:g}")
    return t.clamp(max=t_max)


def linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """beta_t evenly spaced, t = 1 ... T (eq. 3; Ho et al. 2020, section 4)."""
    _check_betas(num_train_steps, beta_start, beta_end)
    return torch.linspace(beta_start, beta_end, num_train_steps, dtype=torch.float64)


def scaled_linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """sqrt(beta_t) evenly spaced (eq. 4; Rombach et al. 2022, the latent diffusion code)."""
    _check_betas(num_train_steps, beta_start, beta_end)
    return torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64) ** 2


def cosine_betas(num_train_steps: int, offset: float, beta_max: float) -> Tensor:
    """1 - beta_t = f(t)/f(t - 1), f(t) = cos^2((t/T + o)/(1 + o) pi/2), capped (eq. 5; Nichol & Dhariwal 2021)."""
    _check_steps(num_train_steps)
    if not (0 <= offset < 1 and 0 < beta_max < 1):
        raise UserError(
            f"cosine schedule: offset is {offset!r} and beta_max {beta_max!r}",
            "they must satisfy 0 <= offset < 1 and 0 < beta_max < 1",
        )
    share = torch.arange(num_train_steps + 1, dtype=torch.float64) / num_train_steps
    f = torch.cos((share + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=beta_max)


def _check_steps(num_train_steps: int) -> None:
    if isinstance(num_train_steps, bool) or not isinstance(num_train_steps, int) or num_train_steps < 1:
        raise UserError(f"num_train_steps is {num_train_steps!r}", "give a whole number of at least 1")


def _check_betas(num_train_steps: int, beta_start: float, beta_end: float) -> None:
    _check_steps(num_train_steps)
    if not 0 < beta_start <= beta_end < 1:
        raise UserError(f"betas run from {beta_start!r} to {beta_end!r}", "they must satisfy 0 < start <= end < 1")


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A table over t = 1 ... T (t = 0 is clean): table[t - 1] is log_snr = ln(signal_rate / noise_rate), float64 (T,).

    Between integers log_snr is linear in t (eq. 11). Where one end is infinite, sigma = e^-log_snr is linear below
    t = 1, sigma = t sigma_1, and with zero terminal SNR its inverse is above T - 1, 1/sigma = (T - t)/sigma_{T-1}.
    So log_snr is continuous and strictly decreasing on all of [0, T].
    """

    table: Tensor
    settings: dict[str, Any]
    t_min = 1.0

    @classmethod
    def from_betas(cls, beta: Tensor, settings: dict[str, Any], *, zero_terminal_snr: bool) -> Self:
        """From beta (T,): ln alpha_bar = sum ln(1 - beta) (eq. 6), then log_snr without computing 1 - alpha_bar."""
        log_alpha_bar = torch.log1p(-beta).cumsum(0)
        if zero_terminal_snr:
            # Lin et al. 2024, algorithm 1 (eq. 7): sqrt(alpha_bar_T) is shifted to 0, then all scaled to keep t = 1.
            if len(beta) < 2:
                raise UserError("zero terminal SNR needs at least 2 steps", "raise num_train_steps")
            rate = torch.exp(log_alpha_bar / 2)
            log_alpha_bar = 2 * torch.log((rate - rate[-1]) * (rate[0] / (rate[0] - rate[-1])))
        return cls((log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))) / 2, settings)

    @property
    def num_train_steps(self) -> int:
        return len(self.table)

    @property
    def t_max(self) -> float:
        return float(len(self.table))

    @property
    def ends_without_signal(self) -> bool:
        """Whether signal_rate is 0 at t = T (zero terminal SNR)."""
        return math.isinf(self.table[-1])

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(signal_rate / noise_rate) at any t in [0, T], shaped like t, float64; +inf at t = 0."""
        t = within(as_float64(t), self.num_train_steps)
        table = self._finite(t)
        inside = t.clamp(1, len(table))
        low = inside.nan_to_num().long().clamp(max=len(table) - 1)
        # A table of one entry is met by table[low - 1] = table[-1] = table[low].
        log_snr = torch.lerp(table[low - 1], table[low], inside - low) - torch.log(t.clamp(max=1))
        if self.ends_without_signal:
            log_snr = log_snr + torch.log((self.num_train_steps - t).clamp(max=1))
        return log_snr

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr` on [0, T]; values beyond the noisiest level give T."""
        log_snr = as_float64(log_snr)
        table = self._finite(log_snr)
        inside = log_snr.clamp(table[-1], table[0])
        # searchsorted wants an ascending sequence: -log_snr ascends with t.
        low = torch.searchsorted(-table, -inside.contiguous())
        share = (inside - table[low - 1]) / (table[low] - table[low - 1])
        # The landing on 0 scales t = 1; an only entry has no neighbour, 0/0, and lies a whole step from 0.
        t = (low + share.nan_to_num(1.0)) * torch.exp((table[0] - log_snr).clamp(max=0))
        if self.ends_without_signal:
            t = t - torch.expm1((log_snr - table[-1]).clamp(max=0))
        return t

    def _finite(self, like: Tensor) -> Tensor:
        """The table's levels that have signal, on the device of `like`."""
        return self.table[: len(self.table) - self.ends_without_signal].to(like.device)


@dataclass(frozen=True)
class AngleSchedule:
    """The seed's continuous levels: t is noise_rate itself, signal_rate = sqrt(1 - t^2) (eq. 8), t_max < 1."""

    t_max: float
    t_min = 0.002
    num_train_steps = None

    @property
    def settings(self) -> dict[str, Any]:
        return {"schedule": "angle", "t_max": self.t_max}

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(sqrt(1 - t^2) / t)."""
        t = within(as_float64(t), self.t_max)
        return (torch.log1p(-t) + torch.log1p(t)) / 2 - torch.log(t)

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """t = noise_rate = sqrt(sigmoid(-2 log_snr))."""
        return torch.sigmoid(-2 * as_float64(log_snr)).sqrt().clamp(max=self.t_max)
