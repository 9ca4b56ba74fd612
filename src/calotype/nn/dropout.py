"""Dropout whose draws are a pure function of (seed, step, sample id): a resumed run drops what it would have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.random import uniform


@dataclass
class _Draws:
    seed: int
    step: int
    ids: Tensor
    layer: int = 0


_draws: ContextVar[_Draws | None] = ContextVar("draws", default=None)


@contextmanager
def dropping(seed: int, step: int, ids: Tensor) -> Iterator[None]:
    """Within it, every `Dropout` layer draws for the samples ids (b,) of this step, in the order of the calls."""
    before = _draws.set(_Draws(seed, step, ids))
    try:
        yield
    finally:
        _draws.reset(before)


class Dropout(nn.Module):
    """x (b, ...) -> x with a share `p` of its values zero and the rest divided by 1 - p (Srivastava et al. 2014).

    Only in training. Outside of `dropping` the draws are torch's own.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        draws = _draws.get()
        if draws is None:
            return F.dropout(x, self.p)
        draws.layer += 1
        chances = uniform(draws.seed, f"dropout-{draws.layer}", draws.step, draws.ids.to(x.device), tuple(x.shape[1:]))
        return x * (chances >= self.p) / (1 - self.p)
