"""Folders that transformers saved: their own numbers come out, and what is no network of pictures is one line."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from calotype.core.errors import UserError
from calotype.features import load_extractor
from calotype.features.preparing import normalised, resized
from calotype.features.transformers_folder import _preparing

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SEEN = {"image_size": 32, "patch_size": 8}
PREPARING = {
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 3,
}


def vit(pooler: bool = True) -> Any:
    return transformers.ViTModel(transformers.ViTConfig(**SMALL, **SEEN), add_pooling_layer=pooler)


def clip() -> Any:
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**SMALL, "vocab_size": 50, "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 1},
            vision_config={**SMALL, **SEEN},
            projection_dim=16,
        )
    )


def resnet() -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetModel(config)


def saved(model: Any, folder: Path, preparing: dict[str, Any] = PREPARING) -> str:
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preparing))
    return f"hf:{folder}"


def pictures() -> Tensor:
    return torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_extractor(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "dim", "vector"),
    [
        (vit, 32, lambda model, pixels: model(pixel_values=pixels).pooler_output),
        (lambda: vit(pooler=False), 32, lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean(1)),
        (resnet, 16, lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean((2, 3))),
        (
            clip,
            16,
            lambda model, pixels: model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
        ),
    ],
)
def test_features_are_what_the_model_pools(tmp_path: Path, make: Any, dim: int, vector: Any) -> None:
    torch.manual_seed(0)
    model = make()
    extractor = load_extractor(saved(model, tmp_path / "net"))
    assert extractor.dim == dim
    assert extractor.name == f"{model.config.model_type} (net)"
    pixels = normalised(resized(pictures(), (32, 32)), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    with torch.no_grad():
        wanted = vector(model, pixels)
    assert wanted.std(0).max() > 1e-4
    torch.testing.assert_close(extractor(pictures()), wanted, atol=1e-5, rtol=1e-4)


def test_the_hash_is_of_weights_and_settings_and_is_checked(tmp_path: Path) -> None:
    name = saved(vit(), tmp_path)
    found = load_extractor(name).sha256
    assert load_extractor(f"{name}@{found[:12]}").sha256 == found
    refused(f"{name}@{'1' * 12}", "is not the file that was trusted")
    saved(vit(), tmp_path, {**PREPARING, "image_mean": [0.5, 0.5, 0.5]})
    assert load_extractor(name).sha256 != found


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"size": {"shortest_edge": 40}}, ((40, 40), False)),
        ({"size": 40, "resample": 2}, ((40, 40), True)),
        ({"size": {"height": 24, "width": 40}, "do_center_crop": False, "crop_size": 8}, ((24, 40), False)),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 36}}, ((32, 36), False)),
    ],
)
def test_the_size_is_what_the_network_sees(tmp_path: Path, said: dict[str, Any], wanted: Any) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [2] * 3, **said}))
    assert _preparing(path) == (*wanted, (0.1,) * 3, (2.0,) * 3)
    path.write_text(json.dumps({"do_normalize": False, **said}))
    assert _preparing(path) == (*wanted, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "preparing",
    [
        {},
        {**PREPARING, "size": {"longest_edge": 4}},
        {**PREPARING, "image_std": [0, 1, 1]},
        {**PREPARING, "image_mean": [1]},
        {**PREPARING, "rescale_factor": 1},
        {**PREPARING, "size": [1, 2, 3]},
        [],
    ],
)
def test_preparation_that_is_not_said_is_one_line(tmp_path: Path, preparing: Any) -> None:
    refused(saved(resnet(), tmp_path, preparing), "does not say how a picture is made ready")


def test_folders_that_are_no_network_of_pictures_are_one_line_each(tmp_path: Path) -> None:
    refused(f"hf:{tmp_path}/none", "is no folder with config.json and preprocessor_config.json")
    text = transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=30))
    refused(saved(text, tmp_path / "bert"), "is a bert, which sees no pictures")
    hiding = transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL, **SEEN))
    refused(saved(hiding, tmp_path / "mae"), "sees the same picture differently each time")


def test_spoilt_folders_are_one_line_each(tmp_path: Path) -> None:
    name, weights, config = saved(vit(), tmp_path), tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, settings = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:-100])
    refused(name, "cannot be used")
    weights.write_bytes(whole)
    config.write_text(settings.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    refused(name, "is not whole: it lacks")
    config.write_text(settings.replace('"hidden_size": 32', '"hidden_size": 48'))
    refused(name, "cannot be used|other shapes")
    config.write_text("{")
    refused(name, "cannot be used|not valid JSON")
    config.write_text(settings)
    weights.rename(tmp_path / "pytorch_model.bin")
    refused(name, "only safetensors are read")


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    name, config = saved(vit(), tmp_path), tmp_path / "config.json"
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    said = json.loads(config.read_text())
    for changed in (
        {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}},
        {"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}, "_attn_implementation": "owner/kernel"},
    ):
        config.write_text(json.dumps({**said, **changed}))
        with suppress(UserError):
            load_extractor(name)
        assert not (tmp_path / "ran").exists()


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = saved(resnet(), tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(name, r"'hf:' needs package 'transformers': pip install 'calotype\[hf\]'")
