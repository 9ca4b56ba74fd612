"""Blocks start as the identity, see their condition, and pass gradient to every parameter."""

from __future__ import annotations

import math

import torch

from calotype.nn import CrossAttention, ResidualBlock, SpatialAttention, sinusoidal_embedding


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


def test_sinusoidal_embedding_by_hand() -> None:
    u = torch.tensor([0.0, 3.0])
    e = sinusoidal_embedding(u, 4)
    expected = [[1, 1, 0, 0], [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]]
    torch.testing.assert_close(e, torch.tensor(expected))


def test_sinusoidal_embedding_has_no_constant_half() -> None:
    spread = sinusoidal_embedding(torch.linspace(0, 20_000, 999), 32).std(dim=0)
    assert (spread > 1e-2).all()
