"""The feature extractors by name, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from calotype.core.errors import UserError, nearest


class FeatureExtractor(Protocol):
    """Images (n, 3, h, w) in [-1, 1] -> features (n, dim). Scores print `name`, for they mean nothing without it."""

    name: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor: ...


def _efficientnet_lite0() -> FeatureExtractor:
    from calotype.features.efficientnet import EfficientNetLite0

    return EfficientNetLite0()


EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {"efficientnet-lite0": _efficientnet_lite0}


def load_extractor(name: str = "efficientnet-lite0") -> FeatureExtractor:
    """The extractor called `name`, ready to use; UserError for an unknown name or a missing extra."""
    if name not in EXTRACTORS:
        raise UserError(f"no feature extractor '{name}'", nearest(name, EXTRACTORS))
    return EXTRACTORS[name]()
