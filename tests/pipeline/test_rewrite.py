"""A bundle's defaults, weights and facts can be changed in place; a reader sees the old bundle or the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from calotype.core import files
from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import verify_folder
from calotype.core.tensors import halved, load_tensors
from calotype.pipeline import Pipeline, load
from calotype.pipeline.bundle import rewrite_bundle, save_bundle
from tests.pipeline.exported import make_model


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_bundle(make_model(), folder, Image.new("RGB", (8, 8), "red"))
    return folder


def weights_of(model: Pipeline) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_given_changes_and_the_rest_stays(bundle: Path) -> None:
    before = load(bundle, "cpu")
    old, sampling = weights_of(before), before.recipe.sampling.model_copy(update={"sampler": "heun", "num_steps": 9})
    rewrite_bundle(bundle, sampling=sampling, facts={"lab": {"summary": "none"}, "examples": None})
    verify_folder(bundle, sealed=True)
    after = load(bundle, "cpu")
    assert after.recipe.sampling == sampling
    assert after.recipe.model_copy(update={"sampling": before.recipe.sampling}) == before.recipe
    assert after.facts["lab"] == {"summary": "none"}
    assert "examples" not in after.facts
    assert after.facts["data"] == before.facts["data"]
    assert same(weights_of(after), old)
    assert after.codec.statistics == before.codec.statistics
    assert Image.open(bundle / "samples.png").getpixel((0, 0)) == (255, 0, 0)
    assert not torch.equal(after.sample_tensor(seed=1), before.sample_tensor(seed=1))
    asked = before.sample_tensor(seed=1, sampler="heun", num_steps=9)
    assert torch.equal(after.sample_tensor(seed=1), asked)  # with no flags


def test_other_weights_sheet_and_files_that_are_not_its_own(bundle: Path) -> None:
    old = weights_of(load(bundle, "cpu"))
    (bundle / "LICENSE").write_text("theirs")
    rewrite_bundle(
        bundle, weights={name: tensor + 1 for name, tensor in old.items()}, samples=Image.new("RGB", (8, 8), "blue")
    )
    assert same(weights_of(load(bundle, "cpu")), {name: tensor + 1 for name, tensor in old.items()})
    assert (bundle / "LICENSE").read_text() == "theirs"
    assert Image.open(bundle / "samples.png").getpixel((0, 0)) == (0, 0, 255)


def test_weights_of_another_network_are_refused_and_the_old_bundle_stands(bundle: Path) -> None:
    old = weights_of(load(bundle, "cpu"))
    with pytest.raises(CorruptFileError, match="another architecture"):
        rewrite_bundle(bundle, weights=dict(list(old.items())[1:]))
    assert same(weights_of(load(bundle, "cpu")), old)


def test_a_full_disk_leaves_the_old_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_put_in_place", full)
    with pytest.raises(OSError, match="No space left"):
        rewrite_bundle(bundle, facts={"name": "other"})
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["model"]


def test_a_damaged_bundle_is_refused(bundle: Path) -> None:
    (bundle / "model.json").write_text("{}")
    with pytest.raises(CorruptFileError):
        rewrite_bundle(bundle, facts={"name": "other"})


def dtypes(bundle: Path) -> set[torch.dtype]:
    return {t.dtype for name in ("denoiser", "vae") for t in load_tensors(bundle / f"{name}.safetensors").values()}


def test_float16_is_half_the_bytes_draws_nearly_the_same_and_stays(bundle: Path, tmp_path: Path) -> None:
    full, half = load(bundle, "cpu"), tmp_path / "half"
    save_bundle(full, half, half=True)
    verify_folder(half, sealed=True)
    assert dtypes(bundle) == {torch.float32}
    assert dtypes(half) == {torch.float16}
    for name in ("denoiser.safetensors", "vae.safetensors"):
        assert (half / name).stat().st_size < 0.6 * (bundle / name).stat().st_size
    packed = load(half, "cpu")
    assert {tensor.dtype for tensor in weights_of(packed).values()} == {torch.float32}
    for name, tensor in weights_of(full).items():  # rounded to eleven bits, none cut off
        torch.testing.assert_close(weights_of(packed)[name], tensor, rtol=2**-11, atol=2**-24)
    one, other = (model.sample_tensor(num_images=2, seed=3) for model in (full, packed))
    assert 0 < (one - other).abs().max() < 0.05

    written = {name: (half / name).read_bytes() for name in ("denoiser.safetensors", "vae.safetensors")}
    rewrite_bundle(half, facts={"name": "other"})
    assert {name: (half / name).read_bytes() for name in written} == written
    moved = {name: tensor + 1e-3 for name, tensor in weights_of(packed).items()}
    told = rewrite_bundle(half, weights=moved)
    assert dtypes(half) == {torch.float16}
    assert same(weights_of(told), weights_of(load(half, "cpu")))  # what is returned is what was written


@pytest.mark.parametrize("value", [70_000.0, float("nan")])
def test_what_float16_cannot_hold_is_refused_and_the_old_bundle_stands(bundle: Path, value: float) -> None:
    save_bundle(load(bundle, "cpu"), bundle, half=True)
    old = weights_of(load(bundle, "cpu"))
    name = next(iter(old))
    spoilt = {**old, name: torch.full_like(old[name], value)}
    with pytest.raises(UserError, match=f"'{name}' reaches .*, which float16 cannot hold"):
        rewrite_bundle(bundle, weights=spoilt)
    assert same(weights_of(load(bundle, "cpu")), old)
    assert [path.name for path in bundle.parent.iterdir()] == ["model"]


def test_whole_numbers_stay_whole() -> None:
    tensors = {"weight": torch.tensor([0.1, 2.0]), "steps": torch.tensor([70_000]), "brain": torch.ones(2).bfloat16()}
    half = halved(tensors)
    assert {name: tensor.dtype for name, tensor in half.items()} == {
        "weight": torch.float16,
        "steps": torch.int64,
        "brain": torch.float16,
    }
    assert half["steps"].item() == 70_000
