"""ONNX files: the graph's own numbers come out, whatever its sides, and what is no such graph is one line."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn.functional import conv2d

from calotype.core.errors import UserError
from calotype.features import load_extractor
from calotype.features.preparing import normalised, resized

Shape = list[int | str]
WEIGHT = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def graph(path: Path, shape: Shape, *, pool: str = "vector", kind: int = TensorProto.FLOAT, inputs: int = 1) -> str:
    """A convolution of stride 4, and what makes a map, tokens or a vector of it."""
    nodes = [helper.make_node("Conv", ["images0", "w"], ["map"], strides=[4, 4])]
    if pool == "vector":
        nodes += [
            helper.make_node("GlobalAveragePool", ["map"], ["one"]),
            helper.make_node("Flatten", ["one"], ["out"]),
        ]
    elif pool == "tokens":
        nodes += [helper.make_node("Reshape", ["map", "to"], ["flat"])]
        nodes += [helper.make_node("Transpose", ["flat"], ["out"], perm=[0, 2, 1])]
    else:
        nodes += [helper.make_node("Identity", ["map"], ["out"])]
    if pool == "one number":
        nodes[-1] = helper.make_node("ReduceMean", ["map"], ["out"], keepdims=0)
    given = [helper.make_tensor_value_info(f"images{i}", kind, shape) for i in range(inputs)]
    weights = [
        numpy_helper.from_array(WEIGHT.numpy().astype(helper.tensor_dtype_to_np_dtype(kind)), "w"),
        numpy_helper.from_array(np.array([0, 5, -1]), "to"),
    ]
    result = helper.make_tensor_value_info("out", kind, None)
    model = helper.make_model(
        helper.make_graph(nodes, "net", given, [result], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return f"onnx:{path}"


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 20, 20, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("pool", ["vector", "tokens", "map"])
@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        (["b", 3, "h", "w"], (224, 224)),
        ([2, 3, 32, 40], (32, 40)),
        ([1, 3, 32, 32], (32, 32)),
        (["b", "c", 32, 32], (32, 32)),
    ],
)
def test_features_are_the_graphs_means(tmp_path: Path, pool: str, shape: Shape, seen: tuple[int, int]) -> None:
    extractor = load_extractor(graph(tmp_path / "net.onnx", shape, pool=pool))
    wanted = conv2d(normalised(resized(pictures(), seen)), WEIGHT, stride=4).mean((2, 3))
    assert extractor.dim == 5
    torch.testing.assert_close(extractor(pictures()), wanted, atol=1e-4, rtol=1e-4)


def test_its_name_and_hash_are_the_files_and_the_hash_is_checked(tmp_path: Path) -> None:
    name = graph(tmp_path / "net.onnx", ["b", 3, 32, 32])
    found = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    extractor = load_extractor(f"{name}@{found[:8]}")
    assert (extractor.name, extractor.sha256) == ("onnx (net.onnx)", found)
    refused(f"{name}@{'3' * 8}", "is not the file that was trusted")


def refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_extractor(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [{"shape": ["b", 1, 32, 32]}, {"shape": ["b", 32]}, {"kind": TensorProto.FLOAT16}, {"inputs": 2}],
)
def test_another_input_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    name = graph(tmp_path / "net.onnx", **{"shape": ["b", 3, 32, 32], **wrong})
    refused(name, r"one input is needed: float32 \(b, 3, h, w\)|is no ONNX file that runs here")


@pytest.mark.parametrize("batch", [1, 2, "b"])
def test_another_output_is_one_line(tmp_path: Path, batch: int | str) -> None:
    refused(graph(tmp_path / "net.onnx", [batch, 3, 32, 32], pool="one number"), "gives no vector of a picture")


def test_spoilt_files_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    name = graph(path, ["b", 3, 32, 32])
    whole = path.read_bytes()
    for content in (b"", b"no graph", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(name, "is no ONNX file that runs here")


def test_weights_in_another_file_are_refused_for_no_hash_covers_them(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    name = graph(path, ["b", 3, 32, 32])
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert (tmp_path / "net.data").is_file()
    refused(name, "is no ONNX file that runs here.*with its weights inside")


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = graph(tmp_path / "net.onnx", ["b", 3, 32, 32])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(name, "'onnx:' needs package 'onnxruntime': pip install onnxruntime")
