"""Noise tables and curves of the variance-preserving family: log_snr as a function of t and its inverse, float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError


def as_float64(t: Tensor | float) -> Tensor:
    """t in float64 on its own device; devices that lack float64 are served from the CPU."""
    t = torch.as_tensor(t)
    return t.to("cpu" if t.device.type == "mps" else t.device).to(torch.float64)


def within(t: Tensor, t_max: float) -> Tensor:
    """t itself if 0 <= t <= t_max, up to float32's rounding of t_max; ValueError with both numbers otherwise.

    On an accelerator the check would stall the queue of kernels, so there a bad t becomes NaN, which nobody overlooks.
    """
    bad = (t < 0) | (t > t_max * (1 + 1e-6)) | t.isnan()
    if t.device.type != "cpu":
        return torch.where(bad, torch.nan, t.clamp(max=t_max))
    if bool(bad.any()):
        raise ValueError(f"t = {t[bad].flatten()[0].item():g} lies outside the process's range 0 ... {t_max:g}")
    return t.clamp(max=t_max)


def linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """beta_t evenly spaced, t = 1 ... T (Ho et al. 2020, section 4)."""
    _check_betas(num_train_steps, beta_start, beta_end)
    return torch.linspace(beta_start, beta_end, num_train_steps, dtype=torch.float64)


def scaled_linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """sqrt(beta_t) evenly spaced (Rombach et al. 2022, the latent diffusion code)."""
    _check_betas(num_train_steps, beta_start, beta_end)
    return torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64) ** 2


def cosine_betas(num_train_steps: int, offset: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """1 - beta_t = f(t) / f(t - 1), f(t) = cos^2((t/T + s)/(1 + s) pi/2), capped (Nichol & Dhariwal 2021, eq. 17)."""
    _check_steps(num_train_steps)
    if not (0 <= offset < 1 and 0 < beta_max < 1):
        raise UserError(
            f"cosine schedule: offset {offset!r} or beta_max {beta_max!r} out of range", "both lie in (0, 1)"
        )
    fraction = torch.arange(num_train_steps + 1, dtype=torch.float64) / num_train_steps
    f = torch.cos((fraction + offset) / (1 + offset) * (math.pi / 2)) ** 2
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

    Between integers log_snr is linear in t. Where one end is infinite the ratio itself is linear: below t = 1,
    sigma = t * sigma_1; with zero terminal SNR, 1/sigma = (T - t) / sigma_{T-1} above T - 1. So log_snr is continuous
    and strictly decreasing on all of [0, T].
    """

    table: Tensor
    settings: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_betas(beta: Tensor, settings: dict[str, Any], *, zero_terminal_snr: bool = False) -> NoiseSchedule:
        """log_snr from beta (T,): ln alpha_bar_t = sum ln(1 - beta), without the cancellation of 1 - alpha_bar."""
        log_alpha_bar = torch.cumsum(torch.log1p(-beta), dim=0)
        if zero_terminal_snr:
            # Lin et al. 2024, algorithm 1: shift sqrt(alpha_bar_T) to 0, then scale so that t = 1 keeps its value.
            rate = torch.exp(log_alpha_bar / 2)
            if len(rate) < 2:
                raise UserError("zero terminal SNR needs at least 2 steps", "raise num_train_steps")
            log_alpha_bar = 2 * torch.log((rate - rate[-1]) * (rate[0] / (rate[0] - rate[-1])))
        table = (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))) / 2
        return NoiseSchedule(table, settings)

    @property
    def num_train_steps(self) -> int:
        return len(self.table)

    @property
    def ends_without_signal(self) -> bool:
        """Whether signal_rate is 0 at t = T (zero terminal SNR)."""
        return math.isinf(self.table[-1].item())

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(signal_rate / noise_rate) at any t in [0, T], shaped like t, float64; +inf at t = 0."""
        last = self.num_train_steps
        t = within(as_float64(t), last)
        table = self.table.to(t.device)
        low = t.nan_to_num().floor().clamp(1, max(last - 1, 1)).long()
        high = (low + 1).clamp(max=last)
        at_low, at_high, share = table[low - 1], table[high - 1], t - low
        between = torch.where(share == 0, at_low, at_low + share * (at_high - at_low))
        between = torch.where(share == 1, at_high, between)
        if self.ends_without_signal:
            between = torch.where(t > last - 1, at_low + torch.log(last - t), between)
        return torch.where(t < 1, table[0] - torch.log(t), between)

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr` on [0, T]; values beyond the noisiest level give T."""
        value = as_float64(log_snr)
        table, last = self.table.to(value.device), self.num_train_steps
        # searchsorted wants an ascending sequence: -log_snr ascends with t.
        high = torch.searchsorted(-table, -value.contiguous()).clamp(1, max(last - 1, 1))
        at_low, at_high = table[high - 1], table[high.clamp(max=last - 1)]
        t = high + ((value - at_low) / (at_high - at_low)).nan_to_num(0.0, 0.0, 0.0)
        if self.ends_without_signal:
            t = torch.where(value < table[-2], last - torch.exp(value - table[-2]), t)
        return torch.where(value > table[0], torch.exp(table[0] - value), t).clamp(0, last)


@dataclass(frozen=True)
class AngleSchedule:
    """The seed's continuous levels: t is noise_rate itself, signal_rate = sqrt(1 - t^2), on [0, t_max], t_max < 1."""

    t_max: float

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(sqrt(1 - t^2) / t)."""
        t = within(as_float64(t), self.t_max)
        return (torch.log1p(-t) + torch.log1p(t)) / 2 - torch.log(t)

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """t = noise_rate = sqrt(sigmoid(-2 log_snr))."""
        return torch.sigmoid(-2 * as_float64(log_snr)).sqrt().clamp(max=self.t_max)
