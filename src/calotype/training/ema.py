"""Averaged weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from calotype.core.errors import CorruptFileError
from calotype.training.parallel import like, local
from calotype.training.post_hoc import TIME, PostHocConfig, exponent


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
        _lerp(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for average, current in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(current)


class PowerAverages:
    """Averages of a network's parameters whose length is a share of the training so far, one for each relative width.

    average <- b average + (1 - b) theta with b = (t' / t)^(power + 1) after t steps, the last update having been after
    t' (eq. 55): the weights at the start, before any update, have no share. Snapshots of them give averages of other
    widths after training (`reconstruct`).
    """

    def __init__(self, network: nn.Module, config: PostHocConfig) -> None:
        self.every, self.time = config.every, 0
        self.powers = {f"{width:g}": exponent(width) for width in config.widths}
        self.averages = {
            width: {name: p.detach().float().clone() for name, p in network.named_parameters()} for width in self.powers
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network's weights after step `step` (0-based), if it is one of every `every`."""
        now = step + 1
        if now % self.every:
            return
        current = [parameter.float() for parameter in network.parameters()]
        for width, average in self.averages.items():
            kept = (self.time / now) ** (self.powers[width] + 1)
            _lerp(list(average.values()), current, 1 - kept)
        self.time = now

    def tensors(self) -> dict[str, Tensor]:
        """Everything there is to save, named width/parameter, sharded where the parameters are; not copied."""
        named = {f"{w}/{name}": tensor for w, average in self.averages.items() for name, tensor in average.items()}
        return {**named, TIME: torch.tensor(self.time)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave, whole tensors also where the parameters are sharded."""
        own = self.tensors()
        if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in tensors.items()}:
            raise CorruptFileError("the averages in the checkpoint are of another network or of other widths")
        self.time = int(tensors[TIME])
        for name in [name for name in own if name != TIME]:
            local(own[name]).copy_(local(like(tensors[name], own[name])))


def _lerp(averages: list[Tensor], current: list[Tensor], weight: float) -> None:
    torch._foreach_lerp_([local(a) for a in averages], [local(c) for c in current], weight)
