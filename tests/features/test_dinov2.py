"""DINOv2 against transformers' Dinov2Model with the same small random weights, and its positions in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.features import load_extractor
from calotype.features.dinov2 import Dinov2, Network
from calotype.features.preparing import normalised, resized

WIDTH, HEADS, DEPTH = 128, 2, 2
OF_TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
OF_LAYERS = {
    "attention.o_proj": "attn.proj",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' model of 16 x 16 positions, every weight random."""
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=224, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        weight.data = 1 + 0.2 * drawn if "norm" in name or "lambda" in name else 0.1 * drawn
    return model


def as_published(model: Any) -> dict[str, Tensor]:
    """The state dict under the names that DINOv2's authors use."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        for theirs, ours in OF_TRANSFORMERS.items():
            if name == theirs or name.startswith(f"{theirs}."):
                tensors[name.replace(theirs, ours)] = tensor
        if name.startswith("encoder.layer."):
            number, rest = name.removeprefix("encoder.layer.").split(".", 1)
            for theirs, ours in OF_LAYERS.items():
                rest = rest.replace(theirs, ours)
            tensors[f"blocks.{number}.{rest}"] = tensor
    for i in range(DEPTH):
        for part in ("weight", "bias"):
            parts = [key for key in sorted(tensors) if f"blocks.{i}.attention" in key and key.endswith(part)]
            by_kind = {
                letter: key for key in parts for letter in "qkv" if f"{letter}_proj" in key or f".{letter}" in key
            }
            tensors[f"blocks.{i}.attn.qkv.{part}"] = torch.cat([tensors.pop(by_kind[letter]) for letter in "qkv"])
    return {**tensors, "mask_token": torch.zeros(1, WIDTH)}


@pytest.fixture(scope="module")
def tensors(reference: Any) -> dict[str, Tensor]:
    return as_published(reference)


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_class_token_is_transformers(tmp_path: Path, reference: Any, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "dinov2_tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    extractor = load_extractor(f"dinov2:{path}")
    assert isinstance(extractor, Dinov2)
    assert (extractor.name, extractor.dim) == ("dinov2 (dinov2_tiny.safetensors)", WIDTH)
    with torch.no_grad():
        wanted = reference(pixel_values=normalised(resized(pictures(), (224, 224)))).pooler_output
    features = extractor(pictures())
    assert features.std() > 0.3
    torch.testing.assert_close(features, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("registers", [False, True])
def test_a_ramp_of_positions_stays_one_when_fewer_are_needed(tensors: dict[str, Tensor], registers: bool) -> None:
    """At position i a straight line has the height (i + 1/2) s - 1/2, which cubic weights reproduce to a twentieth.

    s is 37 / 16.1, not 37 / 16, without registers: at the end that is a fifth.
    """
    learned = 37
    ramp = torch.arange(float(learned)).expand(learned, learned).reshape(1, -1, 1).expand(1, -1, WIDTH)
    shapes = {**tensors, "pos_embed": torch.cat([torch.full((1, 1, WIDTH), -7.0), ramp], dim=1)}
    if registers:
        shapes["register_tokens"] = torch.zeros(1, 4, WIDTH)
    network = Network(shapes)
    network.pos_embed.data = shapes["pos_embed"]
    network.set_positions(224)
    assert network.pos_embed.shape == (1, 1 + 16 * 16, WIDTH)
    assert bool((network.pos_embed[0, 0] == -7).all())
    columns = network.pos_embed[0, 1:, 0].reshape(16, 16).detach()
    scale = learned / 16 if registers else learned / 16.1
    inside = slice(1, -1)
    wanted = ((torch.arange(16) + 0.5) * scale - 0.5).expand(16, 16)
    torch.testing.assert_close(columns[:, inside], wanted[:, inside], atol=0.055, rtol=0)


def test_registers_are_looked_at_and_have_no_position(tensors: dict[str, Tensor]) -> None:
    registers = {**tensors, "register_tokens": torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(2))}
    network = Network(registers)
    network.load_state_dict({name: tensor for name, tensor in registers.items() if name != "mask_token"})
    images = normalised(resized(pictures(1), (224, 224)))
    with torch.no_grad():
        with_registers = network(images)
        network.register_tokens.data = network.register_tokens.data[:, [2, 0, 3, 1]]
        torch.testing.assert_close(network(images), with_registers, atol=1e-5, rtol=1e-4)
        network.register_tokens.data = torch.zeros(1, 4, WIDTH)
        assert (network(images) - with_registers).abs().max() > 1e-3


@pytest.mark.parametrize(
    "spoil", ["blocks.1.ls2.gamma", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"]
)
def test_what_is_not_a_dinov2_is_one_line(tmp_path: Path, tensors: dict[str, Tensor], spoil: str) -> None:
    save_file({k: t.contiguous() for k, t in tensors.items() if k != spoil}, tmp_path / "x.safetensors")
    with pytest.raises(CorruptFileError, match=r"x\.safetensors is not a DINOv2 of its authors'") as error:
        load_extractor(f"dinov2:{tmp_path}/x.safetensors")
    assert "\n" not in str(error.value)
