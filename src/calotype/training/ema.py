"""Averaged weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """Exponential moving average of a network's parameters and buffers, with warm-up.

    ema <- d ema + (1 - d) theta with d = min((1 + k) / (10 + k), 0.5^(batch / halflife)) at step k (from 0): early
    averages are short, so that the average of a young network is not its random initialisation.
    `halflife` is in samples, so that it means the same at any batch size.
    """

    def __init__(self, network: nn.Module, halflife: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife = halflife

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, batch_size: int) -> None:
        """Take in the network's weights after step `step` (0-based)."""
        decay = min((1 + step) / (10 + step), 0.5 ** (batch_size / self.halflife))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for average, current in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(current)
