"""Tensors on disk: exact, and damage is named."""

from pathlib import Path

import pytest
import torch

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.tensors import choose_device, load_tensors, save_tensors


def test_round_trip_is_exact(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(5), "c": torch.zeros(0, 2)}
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.randn(30)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"x\.safetensors"):
        load_tensors(path)
    path.unlink()
    with pytest.raises(CorruptFileError, match="missing"):
        load_tensors(path)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match="not available"):
        choose_device("abacus")
