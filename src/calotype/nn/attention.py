"""Attention over positions of a picture, and from positions to the tokens of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn.layers import group_norm, zeroed


class SpatialAttention(nn.Module):
    """Self-attention over h*w positions with a residual: softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, eq. 1).

    (b, c, h, w) -> (b, c, h, w). The output projection starts at zero, so the block starts as the identity. `qk_norm`
    brings queries and keys to unit mean square before they meet (Henry et al. 2020), so that no logit grows too large.
    """

    def __init__(
        self, channels: int, head_channels: int = 32, *, qk_norm: bool = False, groups: int = 16, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = zeroed(nn.Linear(channels, channels))
        self.heads = Heads(channels, head_channels, qk_norm)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(to_tokens(self.norm(x))).chunk(3, dim=-1)
        return x + to_picture(self.to_out(self.heads(q, k, v)), x)


class CrossAttention(nn.Module):
    """Queries from the picture (b, c, h, w), keys and values from text tokens (b, n, d) with mask (b, n).

    With a single pooled vector this could only add a constant per channel; a real sequence lets each position choose
    its word.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        head_channels: int = 32,
        *,
        qk_norm: bool = False,
        groups: int = 16,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels, 2 * channels)
        self.to_out = zeroed(nn.Linear(channels, channels))
        self.heads = Heads(channels, head_channels, qk_norm)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        q = self.to_q(to_tokens(self.norm(x)))
        k, v = self.to_kv(context).chunk(2, dim=-1)
        return x + to_picture(self.to_out(self.heads(q, k, v, mask)), x)


class Heads(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in channels / head_channels heads: q (b, m, c), k and v (b, n, c) -> (b, m, c).

    `mask` (b, n) is True where a key may be looked at.
    """

    def __init__(self, channels: int, head_channels: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = max(1, channels // head_channels)
        width = channels // self.num_heads
        self.norm_q = nn.RMSNorm(width) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(width) if qk_norm else nn.Identity()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        seen = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, attn_mask=seen)
        return torch.flatten(mixed.transpose(1, 2), 2)


def to_tokens(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h w, c)."""
    return x.flatten(2).transpose(1, 2)


def to_picture(tokens: Tensor, like: Tensor) -> Tensor:
    """(b, h w, c) -> (b, c, h, w), with h and w of `like`."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
