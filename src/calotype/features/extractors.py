"""The feature extractors by name, and the user's own by path, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.core.tensors import choose_device
from calotype.features.weights import Source, parse_source


class FeatureExtractor(Protocol):
    """Images (n, 3, h, w) in [-1, 1] -> features (n, dim), float32 on the CPU.

    Scores print `name`, and `sha256` of the weights, for they mean nothing without them.
    """

    name: str
    sha256: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor: ...


Device = torch.device | str


def _efficientnet_lite0(device: Device) -> FeatureExtractor:
    from calotype.features.efficientnet import EfficientNetLite0

    return EfficientNetLite0(device)


def _inception(source: Source, device: Device) -> FeatureExtractor:
    from calotype.features.inception import InceptionV3

    return InceptionV3(source, device)


def _dinov2(source: Source, device: Device) -> FeatureExtractor:
    from calotype.features.dinov2 import Dinov2

    return Dinov2(source, device)


def _transformers(source: Source, device: Device) -> FeatureExtractor:
    from calotype.features.transformers_folder import TransformersNetwork

    return TransformersNetwork(source, device)


def _onnx(source: Source, device: Device) -> FeatureExtractor:
    from calotype.features.onnx_file import OnnxNetwork

    return OnnxNetwork(source)


EXTRACTORS: dict[str, Callable[[Device], FeatureExtractor]] = {"efficientnet-lite0": _efficientnet_lite0}
KINDS: dict[str, Callable[[Source, Device], FeatureExtractor]] = {
    "inception": _inception,
    "dinov2": _dinov2,
    "hf": _transformers,
    "onnx": _onnx,
}
FORMS = ("inception:FILE@SHA256", "dinov2:FILE@SHA256", "hf:FOLDER", "onnx:FILE")


def load_extractor(name: str = "efficientnet-lite0", device: Device = "cpu") -> FeatureExtractor:
    """The extractor called `name`, ready to use on `device`: packaged, or the user's own in one of FORMS.

    SHA256 is the file's, or its first 8 digits or more. A .pth needs it, elsewhere it is checked if given. UserError
    for an unknown name, a file that is not what it should be, or a missing extra.
    """
    device = choose_device(device) if isinstance(device, str) else device
    if name in EXTRACTORS:
        return EXTRACTORS[name](device)
    kind, colon, place = name.partition(":")
    if not colon or kind not in KINDS:
        raise UserError(f"no feature extractor '{name}'", nearest(name, [*EXTRACTORS, *FORMS]))
    return KINDS[kind](parse_source(kind, place), device)
