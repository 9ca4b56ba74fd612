"""Inception-v3 against pytorch-fid's module, on weights that a formula gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from calotype.core.errors import CorruptFileError
from calotype.core.files import sha256
from calotype.features import load_extractor
from calotype.features.inception import AVERAGE, MAXIMUM, InceptionV3, Mixed, Network

# Features of pytorch-fid 0.3.0's InceptionV3 (on torchvision 0.29.2), given `formula_weights` in float16, by channel;
# the last five come through the one maximum.
OF_PYTORCH_FID = {
    0: 0.115625,
    256: 0.409282,
    512: 2.160105,
    768: 4.497994,
    1024: 0.667499,
    1280: 0.805158,
    1664: 0.534877,
    1856: 0.340563,
    1888: 3.832971,
    1936: 1.702652,
    1968: 1.283722,
    2016: 0.991154,
}


def formula(count: int, salt: int) -> Tensor:
    """Numbers in [-1, 1) without a generator, which could change."""
    n = torch.arange(count)
    return ((n * n * 31 + n * 7 + salt * 1009) % 65537).double() / 32768.5 - 1


def formula_weights() -> dict[str, Tensor]:
    shapes = {name: tensor.shape for name, tensor in Network().state_dict().items()}
    # Names are numbered among all of the file's, the classifier's and the counters with them.
    everything = sorted([*shapes, "fc.weight", "fc.bias"])
    weights = {}
    for salt, name in enumerate(everything):
        if name not in shapes or name.endswith("num_batches_tracked"):
            continue
        u = formula(math.prod(shapes[name]), salt).reshape(shapes[name])
        if name.endswith("conv.weight"):
            u = u * (6 / u[0].numel()) ** 0.5
        else:
            kind = name.rpartition(".")[2]
            u = 1 + 0.2 * u if kind == "weight" else 1 + 0.5 * u if kind == "running_var" else 0.2 * u
        weights[name] = u.half()
    return {**weights, "fc.weight": torch.ones(1008, 2048).half(), "fc.bias": torch.ones(1008).half()}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "formula.safetensors"
    save_file(formula_weights(), path)
    return path


@pytest.fixture(scope="module")
def extractor(path: Path) -> InceptionV3:
    found = load_extractor(f"inception:{path}")
    assert isinstance(found, InceptionV3)
    return found


def test_features_are_those_of_pytorch_fid(extractor: InceptionV3) -> None:
    noise = formula(3 * 64 * 64, 7).reshape(1, 3, 64, 64).float()
    features = extractor(noise)
    assert features.shape == (1, 2048)
    wanted = torch.tensor(list(OF_PYTORCH_FID.values()))
    torch.testing.assert_close(features[0, list(OF_PYTORCH_FID)], wanted, atol=1e-4, rtol=1e-4)


def test_its_name_and_hash_are_the_files(extractor: InceptionV3, path: Path) -> None:
    assert (extractor.name, extractor.dim) == ("inception-v3 (formula.safetensors)", 2048)
    assert extractor.sha256 == sha256(path)


def test_it_has_as_many_weights_as_the_paper_s_network() -> None:
    """23,834,568 with the usual classifier, whose share is 2,049,000, and without the auxiliary one."""
    assert sum(weight.numel() for weight in Network().parameters()) == 23_834_568 - 2_049_000


def test_averages_leave_the_padding_out_and_maxima_are_maxima() -> None:
    ramp = torch.arange(25.0).reshape(1, 1, 5, 5)
    for pooling, corner in ((AVERAGE, (0 + 1 + 5 + 6) / 4), (MAXIMUM, 6.0)):
        block = Mixed(1, [pooling, ("_pool", 1, 1)])
        unit = block.get_submodule("branch_pool")
        unit.conv, unit.bn = nn.Identity(), nn.Identity()
        assert block(ramp)[0, 0, 0, 0].item() == corner


def test_a_missing_tensor_is_named(path: Path, tmp_path: Path) -> None:
    weights = load_file(path)
    del weights["Mixed_7c.branch_pool.conv.weight"]
    save_file(weights, tmp_path / "short.safetensors")
    with pytest.raises(CorruptFileError, match="is not the FID's Inception-v3: it lacks 'Mixed_7c"):
        load_extractor(f"inception:{tmp_path}/short.safetensors")
