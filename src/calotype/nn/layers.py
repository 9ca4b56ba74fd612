"""Layers with this library's conventions."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def group_norm(channels: int, groups: int = 16, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm of `groups` groups, or of the largest half, quarter, ... of them that divides the channels.

    BatchNorm would mix the noise levels of a batch.
    """
    while channels % groups:
        groups = groups // 2 if groups % 2 == 0 else 1
    return nn.GroupNorm(groups, channels, eps=eps)


def zeroed(layer: Module) -> Module:
    """The layer with all parameters at zero, so that the block it ends starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
