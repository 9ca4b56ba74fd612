"""Any network of pictures as one ONNX file, on the CPU."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.runtimes import onnx_session
from calotype.features.preparing import in_batches, normalised, resized
from calotype.features.weights import Source, file_sha256

IMAGE_SIZE = 224  # where the graph takes any
BATCH_SIZE = 32


class OnnxNetwork:
    """Images -> the graph's first output, its means over positions where it has those.

    The graph has one input, float32 (b, 3, h, w), which it gets with ImageNet's normalisation, resized bicubically to
    the size it asks for, else 224 x 224. What other preparation it needs belongs into the graph.
    """

    def __init__(self, source: Source) -> None:
        self.sha256 = file_sha256(source)
        self.name = f"onnx ({source.path.name})"
        self._session = _session(source)
        self._input, self._size, self._batch = _input(self._session, source)
        try:
            self.dim = int(self._forward(torch.zeros(1, 3, *self._size)).shape[1])
        except Exception as error:  # onnxruntime's own classes differ between releases
            raise UserError(
                f"{source.path} gives no vector of a picture ({shorten(str(error), 160)})", "choose another"
            ) from None

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, dim) float32 on the CPU, in batches, whatever n is."""
        return in_batches(self._forward, images, dim=self.dim, batch_size=self._batch or BATCH_SIZE, device="cpu")

    def _forward(self, images: Tensor) -> Tensor:
        pixels = normalised(resized(images, self._size))
        rest = (self._batch or len(pixels)) - len(pixels)  # a graph of a fixed batch takes no smaller one
        padded = torch.cat([pixels, pixels.new_zeros(rest, *pixels.shape[1:])]) if rest else pixels
        first: Any = self._session.run(None, {self._input: np.ascontiguousarray(padded.numpy())})[0]
        states = torch.from_numpy(np.asarray(first, dtype=np.float32))
        if states.ndim not in (2, 3, 4) or len(states) != len(padded):
            raise ValueError(f"its first output has shape {tuple(states.shape)}")
        vectors = states if states.ndim == 2 else states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))
        return vectors[: len(images)]


def _session(source: Source) -> Any:
    """The graph, given as bytes: tensors in other files have no place in a hash."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"'onnx:' needs package '{error.name}'", "pip install onnxruntime") from None
    try:
        return onnx_session(onnxruntime, source.path.read_bytes(), log_severity=4)
    except Exception as error:  # onnxruntime's own classes differ between releases
        raise CorruptFileError(
            f"{source.path} is no ONNX file that runs here ({shorten(str(error), 160)})",
            "give a whole file with its weights inside",
        ) from None


def _input(session: Any, source: Source) -> tuple[str, tuple[int, int], int | None]:
    """Name, height and width, and batch size, if fixed, of the one input; a free side is 224."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        seen = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        raise UserError(f"{source.path} takes {seen}", "one input is needed: float32 (b, 3, h, w)")
    batch, _, height, width = (side if isinstance(side, int) and side > 0 else None for side in shape)
    return inputs[0].name, (height or IMAGE_SIZE, width or IMAGE_SIZE), batch
