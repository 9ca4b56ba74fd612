"""Blocks start as the identity, see their condition, and pass gradient to every parameter."""

from __future__ import annotations

import math

import pytest
import torch

from calotype.nn import CrossAttention, ResidualBlock, SpatialAttention, sinusoidal_embedding, timestep_embedding


def test_residual_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(8, 8, 6)(x, torch.randn(2, 6)), x)


def test_attention_starts_as_the_identity_and_mixes_positions_once_trained() -> None:
    torch.manual_seed(0)
    block, x = SpatialAttention(8, head_channels=4), torch.randn(1, 8, 4, 4)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.to_out.weight)
    moved = x.clone()
    moved[..., 0, 0] += 1
    assert (block(moved) - block(x))[..., 3, 3].abs().max() > 1e-4


def test_attention_is_the_softmax_of_scaled_products() -> None:
    torch.manual_seed(1)
    block, x = SpatialAttention(4, head_channels=4), torch.randn(1, 4, 2, 2)
    torch.nn.init.eye_(block.to_out.weight)
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    q, k, v = block.to_qkv(tokens).chunk(3, dim=-1)
    expected = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(4), dim=-1) @ v
    torch.testing.assert_close(block(x) - x, expected.transpose(1, 2).reshape(1, 4, 2, 2), rtol=1e-4, atol=1e-5)


def test_cross_attention_ignores_masked_tokens_and_sees_the_others() -> None:
    torch.manual_seed(2)
    block = CrossAttention(8, 6, head_channels=4)
    torch.nn.init.normal_(block.to_out.weight)
    x, context = torch.randn(1, 8, 3, 3), torch.randn(1, 4, 6)
    mask = torch.tensor([[True, True, False, False]])
    hidden, seen = context.clone(), context.clone()
    hidden[:, 3] += 1
    seen[:, 1] += 1
    assert torch.equal(block(x, hidden, mask), block(x, context, mask))
    change = block(x, seen, mask) - block(x, context, mask)
    assert change.abs().max() > 1e-4
    assert change.flatten(2).std(dim=2).max() > 1e-5, "with several tokens the change differs from place to place"


def test_timestep_embedding_by_hand() -> None:
    e = timestep_embedding(torch.tensor([0.0, 3.0]), 4)
    expected = [[1, 1, 0, 0], [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]]
    torch.testing.assert_close(e, torch.tensor(expected))


def test_sinusoidal_embedding_is_the_walkthroughs() -> None:
    """Sine and cosine of 2 pi f u side by side, f from 1 to 1000, each ten times the one before for 4 of them."""
    u = 0.0137
    waves = [wave(2 * math.pi * f * u) for f in (1, 10, 100, 1000) for wave in (math.sin, math.cos)]
    torch.testing.assert_close(
        sinusoidal_embedding(torch.tensor([u, 0.0]), 8), torch.tensor([waves, [0.0, 1.0] * 4]), rtol=1e-4, atol=1e-4
    )
    assert sinusoidal_embedding(torch.rand(5)).shape == (5, 32)
    lower = sinusoidal_embedding(torch.tensor([0.25]), 2, min_frequency=0.5, max_frequency=0.5)
    torch.testing.assert_close(lower, torch.tensor([[math.sin(math.pi / 4), math.cos(math.pi / 4)]]))
    for emb_dim in (0, 7):
        with pytest.raises(ValueError, match="come in pairs"):
            sinusoidal_embedding(torch.rand(2), emb_dim)


@pytest.mark.parametrize(
    "embedding", [sinusoidal_embedding(torch.linspace(0, 1, 997), 32), timestep_embedding(torch.arange(20_000.0), 32)]
)
def test_no_wave_stands_still(embedding: torch.Tensor) -> None:
    """Frequencies divided twice would leave half of them constant."""
    assert (embedding.std(dim=0) > 1e-2).all()
