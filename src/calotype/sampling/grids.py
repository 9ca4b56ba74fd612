"""Which levels a sampler visits (eqs. 34 and 35)."""

import math
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest

GridKind = Literal["uniform", "trailing", "quadratic", "cube_root", "log_snr", "karras"]
KINDS: tuple[GridKind, ...] = get_args(GridKind)
BETWEEN_TABLE_LEVELS = ("log_snr", "karras")
SILENT_LOG_SNR = -7.0  # stands in for -inf where a level has no signal at all: a thousandth of it


def timestep_grid(process: Any, num_steps: int, kind: GridKind | None = None, *, shift: float = 1.0) -> Tensor:
    """K + 1 levels for K = num_steps, float64, strictly decreasing: the first is t_max, the last is 0, which is clean.

    The noisy ones, i = 0 ... K - 1 (eq. 34). uniform: evenly from t_max to t_min; quadratic, log_snr: the same in
    sqrt(t), in log_snr; karras: in sigma^(1/7), sigma = b/a (Karras et al. 2022, eq. 5); trailing: t_max (1 - i/K),
    but not below t_min (Lin et al. 2024); cube_root, the seed's: t_max - (t_max - t_min) (i/(K - 1))^(1/3). Then
    `shift` moves them up (eq. 35, Esser et al. 2024): u = t/t_max becomes shift u / (1 + (shift - 1) u).
    Tables are visited at integers wherever that leaves the levels distinct; log_snr and karras fall between.
    The default kind is the family's own: trailing, and karras for variance-exploding processes.
    Raises UserError for num_steps below 1, an unknown kind, a shift below 1, or levels that float64 cannot tell apart.
    """
    if not isinstance(num_steps, int) or isinstance(num_steps, bool) or num_steps < 1:
        raise UserError(f"num_steps is {num_steps!r}", "a sampler needs a whole number of at least 1 step")
    if not (math.isfinite(shift) and shift >= 1):
        raise UserError(f"shift is {shift!r}", "give a number of at least 1, where 1 shifts nothing")
    chosen = getattr(process, "default_grid", "trailing") if kind is None else kind
    noisy = _noisy_levels(process, num_steps, chosen)
    noisy = shift * noisy / (1 + (shift - 1) * noisy / process.t_max)
    if getattr(process, "num_train_steps", None) is not None and chosen not in BETWEEN_TABLE_LEVELS:
        whole = noisy.round()
        noisy = whole if bool(whole.diff().all()) else noisy
    noisy[0] = process.t_max  # exactly, and above a level that stands in for it
    grid = torch.cat([noisy, noisy.new_zeros(1)])
    if not bool(grid.diff().all()):
        raise UserError(
            f"{num_steps} steps with shift {shift:g} leave levels between t = {process.t_max:g} and 0 that are equal",
            "ask for fewer steps or a smaller shift",
        )
    return grid


def _noisy_levels(process: Any, num_steps: int, kind: str) -> Tensor:
    """Levels from t_max (or right below it) down to about t_min, float64 (num_steps,)."""
    t_max, t_min = float(process.t_max), float(process.t_min)
    evenly = partial(torch.linspace, steps=num_steps, dtype=torch.float64)
    match kind:
        case "uniform":
            return evenly(t_max, t_min)
        case "trailing":
            return evenly(t_max, max(t_max / num_steps, t_min))
        case "quadratic":
            return evenly(t_max**0.5, t_min**0.5) ** 2
        case "cube_root":
            return t_max - (t_max - t_min) * evenly(0, 1) ** (1 / 3)
        case "log_snr":
            return process.t_from_log_snr(evenly(*_log_snr_ends(process)))
        case "karras":
            noisiest, cleanest = (math.exp(-end / 7) for end in _log_snr_ends(process))
            return process.t_from_log_snr(-7 * torch.log(evenly(noisiest, cleanest)))
        case _:
            raise UserError(f"unknown grid '{kind}'", nearest(str(kind), KINDS))


def _log_snr_ends(process: Any) -> list[float]:
    """log_snr at t_max and at t_min, both finite."""
    ends = process.log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    return ends.nan_to_num(neginf=SILENT_LOG_SNR).tolist()
