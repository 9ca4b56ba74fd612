"""Files of the user's own weights: what is trusted, by which hash, and one line for each that cannot be read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from calotype.core.errors import UserError
from calotype.features import load_extractor
from calotype.features.weights import fill, fold_norm, parse_source, read_weights

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    torch.save(TENSORS, path)  # noqa: TID251 (what others publish)
    return path


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("digits", [8, 16, 64])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_is_read_by_its_hash_or_the_beginning_of_it(tmp_path: Path, digits: int, zipped: bool) -> None:
    path = tmp_path / "net.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)  # noqa: TID251
    tensors, found = read_weights(parse_source("dinov2", f"{path}@{sha(path)[:digits].upper()}"))
    assert found == sha(path)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_without_its_hash_a_pth_is_not_read_and_the_line_gives_what_to_type(pth: Path) -> None:
    with pytest.raises(UserError) as error:
        load_extractor(f"inception:{pth}")
    assert sha(pth) in one_line(error)
    assert str(error.value).endswith(f"if you trust it: inception:{pth}@{sha(pth)[:16]}")


def test_another_hash_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pth").write_bytes(b"no weights at all")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(UserError, match="is not the file that was trusted: its sha256 is") as error:
        load_extractor(f"dinov2:{tmp_path}/net.pth@{'0' * 64}")
    one_line(error)


def test_too_short_a_hash_is_refused(pth: Path) -> None:
    with pytest.raises(UserError, match=f"'{sha(pth)[:7]}' is too little of a sha256: give 8"):
        load_extractor(f"inception:{pth}@{sha(pth)[:7]}")


def test_an_at_sign_may_be_part_of_a_path(tmp_path: Path) -> None:
    path = tmp_path / "me@home" / "net@12345678"
    path.parent.mkdir()
    path.touch()
    assert parse_source("onnx", str(path)).path == path
    assert parse_source("onnx", f"{path}@{'ab' * 32}").path == path
    assert parse_source("onnx", f"{tmp_path}/me@home/other.onnx").wanted is None


def test_no_path_and_no_file_are_one_line_each(tmp_path: Path) -> None:
    for given, said in (("inception:", "'inception:' names no file"), (f"onnx:{tmp_path}", "is not a file")):
        with pytest.raises(UserError, match=said) as error:
            load_extractor(given)
        one_line(error)


class Code:
    """What a pickle can hold: a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pth_is_not_run_even_if_its_hash_was_given(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "net.pth", tmp_path / "ran"
    torch.save({**TENSORS, "x": Code(mark)}, path, _use_new_zipfile_serialization=zipped)  # noqa: TID251
    with pytest.raises(UserError, match="it names code, which is not run") as error:
        load_extractor(f"inception:{path}@{sha(path)}")
    one_line(error)
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_pth_is_one_line(pth: Path, kept: int) -> None:
    pth.write_bytes(pth.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no whole file of weights") as error:
        load_extractor(f"inception:{pth}@{sha(pth)}")
    one_line(error)


@pytest.mark.parametrize("content", [[1.0], {"epoch": 3}, {3: torch.ones(1)}, {"model": TENSORS}])
def test_a_pth_of_other_things_is_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pth")  # noqa: TID251
    with pytest.raises(UserError, match="holds other things than weights by name") as error:
        load_extractor(f"dinov2:{tmp_path}/net.pth@{sha(tmp_path / 'net.pth')}")
    one_line(error)


@pytest.mark.parametrize("kind", ["inception", "dinov2"])
@pytest.mark.parametrize("content", [b"", b"not the weights", None])
def test_other_weights_and_no_weights_are_one_line(tmp_path: Path, kind: str, content: bytes | None) -> None:
    path = tmp_path / "net.safetensors"
    if content is None:
        save_file(TENSORS, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="is not") as error:
        load_extractor(f"{kind}:{path}")
    one_line(error)


def test_weights_are_filled_in_by_name_in_float32_and_counters_do_not_matter() -> None:
    network = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 1), "norm": nn.BatchNorm2d(2)})
    tensors = {name: torch.full_like(t, 3).half() for name, t in network.state_dict().items() if "num_" not in name}
    fill(network, tensors, Path("net.pth"), "a network")
    assert all(bool((t == 3).all()) and t.dtype == torch.float32 for t in network.parameters())
    for name, tensor, said in (
        ("conv.bias", None, "it lacks 'conv.bias'"),
        ("extra", torch.ones(1), "it has 'extra'"),
        ("conv.bias", torch.ones(3), r"it has 'conv.bias' of shape \(3,\), not \(2,\)"),
    ):
        spoilt = {**tensors, name: tensor} if tensor is not None else {k: v for k, v in tensors.items() if k != name}
        with pytest.raises(UserError, match=f"net.pth is not a network: {said}"):
            fill(network, spoilt, Path("net.pth"), "a network")


def test_a_folded_norm_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    images = torch.rand(2, 3, 8, 8, generator=generator)
    with torch.no_grad():
        before = network.eval()(images)
        fold_norm(network, "0", "1")
        torch.testing.assert_close(network(images), before)
    assert isinstance(network[1], nn.Identity)
