"""Inception-v3 (Szegedy et al. 2015) as the Fréchet Inception Distance uses it (Heusel et al. 2017).

The weights are those of TensorFlow's network of 2015-12-05, as pytorch-fid ported them. It differs from other
Inception-v3s: averages leave the padding out, and the last block takes a maximum where the paper takes an average.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, max_pool2d

from calotype.features.preparing import in_batches
from calotype.features.weights import Source, fill, fold_norm, read_weights

IMAGE_SIZE = 299
BATCH_SIZE = 32
AVERAGE, MAXIMUM, HALVE = "average", "maximum", "halve"  # the three ways to pool 3 x 3
UNUSED = ("fc.", "AuxLogits.")

Kernel = int | tuple[int, int]
Unit = tuple[str, int, Kernel] | tuple[str, int, Kernel, int]  # name, channels out, kernel, and stride if not 1
Path = list[str | Unit | list[Unit]]  # pooling, a unit, or units side by side


class InceptionV3:
    """Images -> the 2,048 averaged activations before the classifier.

    Pictures are brought to 299 x 299 as pytorch-fid does: bilinear, not antialiased.
    """

    dim = 2048

    def __init__(self, source: Source, device: torch.device | str = "cpu") -> None:
        tensors, self.sha256 = read_weights(source)
        self.name = f"inception-v3 ({source.path.name})"
        self.device = device
        network = Network()
        used = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
        fill(network, used, source.path, "the FID's Inception-v3")
        for unit in [module for module in network.modules() if isinstance(module, ConvUnit)]:
            fold_norm(unit, "conv", "bn")
        frozen: Any = network.eval().requires_grad_(False).to(device)
        self._network = frozen.to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, 2048) float32 on the CPU, in batches, whatever n is."""
        return in_batches(self._forward, images, dim=self.dim, batch_size=BATCH_SIZE, device=self.device)

    def _forward(self, images: Tensor) -> Tensor:
        batch = interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
        features: Tensor = self._network(batch.contiguous(memory_format=torch.channels_last))
        return features


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu_()


class Mixed(nn.Module):
    """Paths side by side, (b, c, h, w) -> their channels one after the other. Units keep h and w; stride 2 halves."""

    def __init__(self, channels: int, *paths: Path) -> None:
        super().__init__()
        self.paths = paths
        for path in paths:
            width = channels
            for step in path:
                units = step if isinstance(step, list) else [step]
                for unit in units:
                    if not isinstance(unit, str):
                        self.add_module(f"branch{unit[0]}", _unit(width, unit))
                width = sum(unit[1] for unit in units if not isinstance(unit, str)) or width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._walk(x, path) for path in self.paths], dim=1)

    def _walk(self, x: Tensor, path: Path) -> Tensor:
        for step in path:
            if isinstance(step, str):
                x = _pool(x, step)
            elif isinstance(step, list):
                x = torch.cat([self.get_submodule(f"branch{unit[0]}")(x) for unit in step], dim=1)
            else:
                x = self.get_submodule(f"branch{step[0]}")(x)
        return x


def _unit(channels: int, unit: Unit) -> ConvUnit:
    _, out, kernel, stride = (*unit, 1)[:4]
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ConvUnit(channels, out, kernel, stride, (height // 2, width // 2) if stride == 1 else 0)


def _pool(x: Tensor, how: str) -> Tensor:
    if how == HALVE:
        return max_pool2d(x, 3, stride=2)
    if how == MAXIMUM:
        return max_pool2d(x, 3, stride=1, padding=1)
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Network(nn.Module):
    """(b, 3, 299, 299) in [-1, 1] -> (b, 2048); parts are named as in the file of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.Mixed_5b = _at_35(192, 32)
        self.Mixed_5c = _at_35(256, 64)
        self.Mixed_5d = _at_35(288, 64)
        dbl: Path = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3, 2)]
        self.Mixed_6a = Mixed(288, [("3x3", 384, 3, 2)], dbl, [HALVE])
        self.Mixed_6b = _at_17(128)
        self.Mixed_6c = _at_17(160)
        self.Mixed_6d = _at_17(160)
        self.Mixed_6e = _at_17(192)
        wide: Path = [("7x7x3_1", 192, 1), ("7x7x3_2", 192, (1, 7)), ("7x7x3_3", 192, (7, 1)), ("7x7x3_4", 192, 3, 2)]
        self.Mixed_7a = Mixed(768, [("3x3_1", 192, 1), ("3x3_2", 320, 3, 2)], wide, [HALVE])
        self.Mixed_7b = _at_8(1280, AVERAGE)
        self.Mixed_7c = _at_8(2048, MAXIMUM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_pool(x, HALVE)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_pool(x, HALVE))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return adaptive_avg_pool2d(x, 1).flatten(1)


def _at_35(channels: int, pool: int) -> Mixed:
    """A block of the 35 x 35 maps."""
    return Mixed(
        channels,
        [("1x1", 64, 1)],
        [("5x5_1", 48, 1), ("5x5_2", 64, 5)],
        [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3)],
        [AVERAGE, ("_pool", pool, 1)],
    )


def _at_17(width: int) -> Mixed:
    """A block of the 17 x 17 maps."""
    row, column = (1, 7), (7, 1)
    twice: Path = [("7x7dbl_1", width, 1), ("7x7dbl_2", width, column), ("7x7dbl_3", width, row)]
    return Mixed(
        768,
        [("1x1", 192, 1)],
        [("7x7_1", width, 1), ("7x7_2", width, row), ("7x7_3", 192, column)],
        [*twice, ("7x7dbl_4", width, column), ("7x7dbl_5", 192, row)],
        [AVERAGE, ("_pool", 192, 1)],
    )


def _at_8(channels: int, pooling: str) -> Mixed:
    """A block of the 8 x 8 maps."""
    row, column = (1, 3), (3, 1)
    return Mixed(
        channels,
        [("1x1", 320, 1)],
        [("3x3_1", 384, 1), [("3x3_2a", 384, row), ("3x3_2b", 384, column)]],
        [("3x3dbl_1", 448, 1), ("3x3dbl_2", 384, 3), [("3x3dbl_3a", 384, row), ("3x3dbl_3b", 384, column)]],
        [pooling, ("_pool", 192, 1)],
    )
