"""A bundle's defaults, weights and facts can be changed in place; a reader sees the old bundle or the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from calotype.core import files
from calotype.core.errors import CorruptFileError
from calotype.core.files import verify_folder
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
