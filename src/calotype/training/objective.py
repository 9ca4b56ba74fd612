"""What a stage of training minimises: a pure function of (weights, step, sample ids)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.training.checkpoint import Best


@dataclass
class Losses:
    """Of a batch of b samples: scalar `terms`, each a mean over the batch, and what is known of every sample.

    The network minimises the term 'loss', an auxiliary network 'discriminator', where there is one; all are logged.
    `each` (b,) is every sample's own error, `noise` (b,) the noise angle (eq. 54) at which it was taken, if any.
    """

    terms: dict[str, Tensor]
    each: Tensor
    noise: Tensor | None = None


class Objective(Protocol):
    """One stage of training. `auxiliary` is a second network that learns beside the first, if there is one.

    `best` names the measures by which a checkpoint is better than another, the one to go by first; `steady` the term
    that grows when training diverges and at no other time (without it, the loss), and `floor` what that is for a
    network that knows nothing, if that is known: one that was trained before begins far below it.
    """

    stage: str
    num_samples: int
    auxiliary: nn.Module | None
    best: tuple[Best, ...]
    steady: str
    floor: float

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def losses(self, step: int, ids: Tensor) -> Losses:
        """The losses of one batch of sample indices (b,) in [0, num_samples)."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures of averaged weights on fixed data and noise; the same weights give the same values.

        Where several processes work together each measures its share, and all get the whole's.
        """
        ...

    def observe(self, measures: dict[str, float]) -> bool:
        """Take note of a regular validation while the rate is at its height; True where steps cost more from here."""
        ...

    def state(self) -> dict[str, Any]:
        """What was noted, as JSON for a checkpoint; empty if nothing is."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...


def shared_sums(parts: dict[str, float]) -> dict[str, float]:
    """Numbers that every process has a part of -> their sums, the same on all."""
    sums = distributed.total(torch.tensor(list(parts.values()), dtype=torch.float64))
    return dict(zip(parts, sums.tolist(), strict=True))
