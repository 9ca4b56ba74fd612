"""Which levels a sampler visits."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest

GridKind = Literal["uniform", "trailing", "quadratic", "log_snr", "karras"]
KINDS = ("uniform", "trailing", "quadratic", "log_snr", "karras")


def timestep_grid(process: Any, num_steps: int, kind: GridKind | None = None) -> Tensor:
    """num_steps + 1 levels, float64, strictly decreasing: the first is t_max, the last is 0, which is clean.

    trailing: t_max (1 - i/K) (Lin et al. 2024); uniform: evenly from t_max to t_min, then 0; quadratic: the same in
    sqrt(t); log_snr: the same in log_snr; karras: the same in sigma^(1/7), sigma = b/a (Karras et al. 2022, eq. 5).
    Tables are visited at integers wherever K <= T leaves them distinct; log_snr and karras, and K > T, fall between.
    The default is the family's own: trailing, and karras for variance-exploding processes.
    """
    if isinstance(num_steps, bool) or int(num_steps) != num_steps or num_steps < 1:
        raise UserError(f"num_steps is {num_steps!r}", "a sampler needs a whole number of at least 1 step")
    kind = getattr(process, "default_grid", "trailing") if kind is None else kind
    if kind not in KINDS:
        raise UserError(f"unknown grid '{kind}'", nearest(str(kind), KINDS))
    count, t_max, t_min = int(num_steps), float(process.t_max), float(process.t_min)
    levels_of_table = getattr(process, "num_train_steps", None)
    if count == 1:
        noisy = torch.tensor([t_max], dtype=torch.float64)
    elif kind == "trailing" and (levels_of_table is None or count <= levels_of_table):
        noisy = t_max * (1 - torch.arange(count, dtype=torch.float64) / count)
    elif kind in ("trailing", "uniform"):
        noisy = torch.linspace(t_max, t_min, count, dtype=torch.float64)
    elif kind == "quadratic":
        noisy = torch.linspace(t_max**0.5, t_min**0.5, count, dtype=torch.float64) ** 2
    else:
        noisy = _in_log_snr(process, count, kind)
    if levels_of_table is not None and kind in ("uniform", "trailing", "quadratic"):
        whole = noisy.round()
        noisy = whole if bool((whole.diff() < 0).all()) else noisy
    grid = torch.cat([noisy, torch.zeros(1, dtype=torch.float64)])
    grid[0] = t_max
    if not bool((grid.diff() < 0).all()):
        raise UserError(f"{num_steps} steps do not fit between t = {t_max:g} and {t_min:g}", "ask for fewer steps")
    return grid


def _in_log_snr(process: Any, count: int, kind: str) -> Tensor:
    """`count` levels from t_max to t_min, evenly in log_snr or in sigma^(1/7)."""
    first = [process.t_max]
    if math.isinf(float(process.log_snr(torch.tensor(process.t_max)))):
        # A level without signal has no finite log_snr: it is visited first, and the rest starts right below it.
        width = 1.0 if process.num_train_steps is not None else process.t_max / 1000
        first.append(max(process.t_max - width, (process.t_max + process.t_min) / 2))
    if count <= len(first):
        return torch.tensor(first[:count], dtype=torch.float64)
    edges = process.log_snr(torch.tensor([first[-1], process.t_min], dtype=torch.float64))
    points = count - len(first) + 1
    if kind == "log_snr":
        log_snr = torch.linspace(float(edges[0]), float(edges[1]), points, dtype=torch.float64)
    else:
        ends = torch.exp(-edges / 7)
        log_snr = -7 * torch.log(torch.linspace(float(ends[0]), float(ends[1]), points, dtype=torch.float64))
    return torch.cat([torch.tensor(first, dtype=torch.float64), process.t_from_log_snr(log_snr)[1:]])
