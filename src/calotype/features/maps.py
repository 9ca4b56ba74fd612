"""Networks that see a picture at several resolutions, by name, for a perceptual loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest


class FeatureMaps(Protocol):
    """Images (n, 3, h, w) in [-1, 1] -> activations, each (n, c_k, h_k, w_k), of a frozen network; gradients pass."""

    name: str

    def __call__(self, images: Tensor) -> list[Tensor]: ...


def _efficientnet_lite0(device: torch.device | str) -> FeatureMaps:
    from calotype.features.efficientnet import EfficientNetLite0Maps

    return EfficientNetLite0Maps(device)


FEATURE_MAPS: dict[str, Callable[[torch.device | str], FeatureMaps]] = {"efficientnet-lite0": _efficientnet_lite0}


def check_feature_maps(name: str) -> None:
    """UserError for a name that is not in FEATURE_MAPS."""
    if name not in FEATURE_MAPS:
        raise UserError(f"no feature network '{name}'", nearest(name, FEATURE_MAPS))


def load_feature_maps(name: str, device: torch.device | str = "cpu") -> FeatureMaps:
    """The network called `name`, ready to use; UserError for an unknown name or a missing extra."""
    check_feature_maps(name)
    return FEATURE_MAPS[name](device)


def perceptual_distance(maps: FeatureMaps, images: Tensor, other: Tensor) -> Tensor:
    """Mean over maps and positions of |a/|a| - b/|b||^2, a, b the channels there (eq. 50), (); gradients reach `other`.

    Zhang et al. (2018), eq. 1, with every weight 1: 0 where all channels agree up to a factor, 2 where they have
    nothing in common.
    """
    with torch.no_grad():
        wanted = [_unit(a) for a in maps(images)]
    distances = [(a - _unit(b)).square().sum(1).mean() for a, b in zip(wanted, maps(other), strict=True)]
    return torch.stack(distances).mean()


def _unit(activations: Tensor) -> Tensor:
    # Where every channel is 0 the square root has no gradient: hence the small number under it.
    return activations / (activations.square().sum(1, keepdim=True) + 1e-10).sqrt()
