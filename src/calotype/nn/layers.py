"""Layers with this library's conventions."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of up to 16 groups. BatchNorm would mix the noise levels of a batch."""
    groups = next(g for g in (16, 8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def zeroed(layer: Module) -> Module:
    """The layer with all parameters at zero, so that the block it ends starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
