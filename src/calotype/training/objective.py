"""What a stage of training minimises: a pure function of (weights, step, sample ids)."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """One stage of training. `auxiliary` is a second network that learns beside the first, if there is one."""

    stage: str
    num_samples: int
    auxiliary: nn.Module | None

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def losses(self, step: int, ids: Tensor) -> dict[str, Tensor]:
        """Scalars of one batch of sample indices (b,) in [0, num_samples), all of them logged.

        `network` minimises 'loss'; `auxiliary` minimises 'discriminator', at steps that have it.
        """
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures of averaged weights on fixed data and noise; the same weights give the same values."""
        ...

    def observe(self, measures: dict[str, float]) -> None:
        """Take note of a regular validation, before the next step."""
        ...

    def state(self) -> dict[str, Any]:
        """What was noted, as JSON for a checkpoint; empty if nothing is."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...
