"""Modules of torch as ONNX files, and how far ONNX Runtime's answers are from torch's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError

OPSET = 18  # the exporter's own: any later one is a conversion of it, and every ONNX Runtime since 1.15 reads it
ONE_FILE = 1_900_000_000  # bytes of weights that one .onnx holds: protobuf ends at 2 GB

Inputs = Mapping[str, Tensor]


def require(*packages: str) -> None:
    """UserError with the extra to install if a package is missing."""
    for name in packages:
        if find_spec(name) is None:
            raise UserError(f"the ONNX export needs package '{name}'", "pip install 'calotype[export]'")


def write_graph(
    module: nn.Module, path: Path, inputs: Inputs, outputs: Sequence[str], lengths: Sequence[str] = ()
) -> None:
    """Trace module(inputs) into one file. The first axis of every input is dynamic, of `lengths` the second too.

    By torch.export: the older exporter, which records what it sees, wrote the batch of the example into the graph.
    """
    axis = torch.export.Dim.DYNAMIC
    shapes = {name: {0: axis, 1: axis} if name in lengths else {0: axis} for name in inputs}
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    with _quiet():
        torch.onnx.export(
            module,
            (dict(inputs), {}),  # a last dict would be taken for keyword arguments
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(shapes,),
            opset_version=OPSET,
            dynamo=True,
            external_data=size > ONE_FILE,
            verbose=False,
        )


def difference(module: nn.Module, path: Path, cases: Sequence[Inputs]) -> float:
    """Largest difference between the graph's first output and module(inputs), as a share of what that reaches."""
    from calotype.pipeline.export.runner import session

    graph, worst = session(path), 0.0
    for inputs in cases:
        with torch.no_grad():
            expected = module(inputs)
        expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
        answer = graph.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
        worst = max(worst, float(np.abs(answer - expected).max() / max(np.abs(expected).max(), 1e-12)))
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own makers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
