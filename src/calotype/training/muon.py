"""Muon: momentum, orthogonalised (Jordan et al. 2024, "Muon: an optimizer for hidden layers")."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, optim

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at zero: small singular values reach about 1 in five rounds


def orthogonalize(matrices: Tensor, rounds: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: (n, r, c) -> (n, r, c) with singular values near 1.

    Newton-Schulz with the quintic X <- a X + b (X X^T) X + c (X X^T)^2 X. torch's own Muon takes matrices only, one by
    one; convolutions of one shape are turned here in one batched product, which is what a CPU needs.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(optim.Optimizer):
    """For weights of two or more dimensions, each seen as a matrix (out, rest). Nesterov momentum, no bias terms."""

    def __init__(self, parameters: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """W <- W - lr sqrt(max(1, rows / columns)) orthogonalize(g + momentum m)."""
        for group in self.param_groups:
            for (rows, columns), parameters in _by_shape(group["params"]).items():
                updates = [self._momentum(p, group["momentum"]).reshape(rows, columns) for p in parameters]
                turned = orthogonalize(torch.stack(updates))
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for parameter, update in zip(parameters, turned, strict=True):
                    parameter.add_(update.view_as(parameter), alpha=-rate)

    def _momentum(self, parameter: Tensor, decay: float) -> Tensor:
        """m <- decay m + (1 - decay) g; returns the look-ahead (1 - decay) g + decay m."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"].lerp_(parameter.grad, 1 - decay)
        return parameter.grad.lerp(momentum, decay)


def _by_shape(parameters: list[Tensor]) -> dict[tuple[int, int], list[Tensor]]:
    """Parameters that have a gradient, grouped by their shape as a matrix."""
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
    return groups
