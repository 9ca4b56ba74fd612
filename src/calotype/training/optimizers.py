"""Optimisers and the learning-rate curve."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import nn, optim

from calotype.core.config import Config
from calotype.training.journal import Segment
from calotype.training.muon import Muon


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019), or Muon on convolutions (rate `muon_lr`) and AdamW on the rest.

    The learning rate warms up over `warmup` steps, stays, and decays to zero over the last `decay_share` of the steps
    (1: all of them; "none": never), or of the time where time is what was given: nothing before the decay depends on
    the length of the run, so the length may be decided on the way.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(2e-3, gt=0)
    muon_lr: float = Field(0.02, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(100, ge=1)
    decay: Literal["linear", "cosine", "none"] = "linear"
    decay_share: float = Field(0.4, gt=0, le=1)
    clip_norm: float = Field(1.0, gt=0)

    @property
    def plateau_share(self) -> float:
        """The share of the steps before the decay begins."""
        return 1.0 if self.decay == "none" else 1 - self.decay_share


def build_optimizers(network: nn.Module, config: OptimizerConfig) -> list[optim.Optimizer]:
    """The optimisers that share the network's parameters between them; each group remembers its peak rate."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    convolutions = [p for p in parameters if p.ndim == 4] if config.name == "muon" else []
    chosen = {id(parameter) for parameter in convolutions}
    rest = [parameter for parameter in parameters if id(parameter) not in chosen]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
    adamw = optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)
    optimizers: list[optim.Optimizer] = [adamw]
    if convolutions:
        optimizers.append(Muon(convolutions, lr=config.muon_lr))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def lr_factor(step: int, segment: Segment, config: OptimizerConfig) -> float:
    """The share of the peak rate at `step`: warm-up, plateau, decay to zero at the segment's end (eq. 60)."""
    warm = min(1.0, (step - segment.start + 1) / config.warmup)
    if segment.end is None or config.decay == "none":
        return warm
    left = min(1.0, (segment.end - step) / max(1.0, segment.end - segment.decay_begins(config.decay_share)))
    return warm * (left if config.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def set_lr(optimizers: list[optim.Optimizer], factor: float) -> float:
    """Scale every group's peak rate; returns the first group's rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
    return float(optimizers[0].param_groups[0]["lr"])
