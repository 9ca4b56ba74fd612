"""Attention over positions of a picture, and from positions to the tokens of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn.layers import group_norm, zeroed


class SpatialAttention(nn.Module):
    """Self-attention over h*w positions with a residual: softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, eq. 1).

    (b, c, h, w) -> (b, c, h, w). The output projection starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.num_heads = max(1, channels // head_channels)
        self.norm = group_norm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_qkv(tokens).chunk(3, dim=-1)
        mixed = _attend(q, k, v, self.num_heads, None)
        return x + self.to_out(mixed).transpose(1, 2).reshape(b, c, h, w)


class CrossAttention(nn.Module):
    """Queries from the picture (b, c, h, w), keys and values from text tokens (b, n, d) with mask (b, n).

    With a single pooled vector this could only add a constant per channel; a real sequence lets each position choose
    its word.
    """

    def __init__(self, channels: int, context_channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.num_heads = max(1, channels // head_channels)
        self.norm = group_norm(channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels, 2 * channels)
        self.to_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.to_q(self.norm(x).flatten(2).transpose(1, 2))
        k, v = self.to_kv(context).chunk(2, dim=-1)
        mixed = _attend(q, k, v, self.num_heads, mask[:, None, None, :])
        return x + self.to_out(mixed).transpose(1, 2).reshape(b, c, h, w)


def _attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, mask: Tensor | None) -> Tensor:
    def split(tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return torch.flatten(mixed.transpose(1, 2), 2)
