"""The transformer block of latent diffusion models: self-attention, cross-attention, feed-forward."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from calotype.nn.attention import Heads, to_picture, to_tokens
from calotype.nn.layers import group_norm, zeroed


class SpatialTransformer(nn.Module):
    """x + project(block(project(norm(x)))) over h*w positions (Rombach et al. 2022, appendix E.2.1).

    The block adds in turn self-attention, cross-attention to the tokens (b, n, d) under mask (b, n), and a feed-forward
    layer with a gate, GEGLU (Shazeer 2020). x (b, c, h, w) -> (b, c, h, w); it starts as the identity. The layout is
    that of diffusers' Transformer2DModel with linear projections, so that weights can go there.
    """

    def __init__(self, channels: int, context_channels: int, head_channels: int = 32, *, groups: int = 16) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.heads = Heads(channels, head_channels)
        self.norm1 = nn.LayerNorm(channels)
        self.self_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.self_out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.cross_q = nn.Linear(channels, channels, bias=False)
        self.cross_kv = nn.Linear(context_channels, 2 * channels, bias=False)
        self.cross_out = nn.Linear(channels, channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff_in = nn.Linear(channels, 8 * channels)
        self.ff_out = nn.Linear(4 * channels, channels)
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        tokens = self.proj_in(to_tokens(self.norm(x)))
        tokens = tokens + self.self_out(self.heads(*self.self_qkv(self.norm1(tokens)).chunk(3, dim=-1)))
        k, v = self.cross_kv(context).chunk(2, dim=-1)
        tokens = tokens + self.cross_out(self.heads(self.cross_q(self.norm2(tokens)), k, v, mask))
        value, gate = self.ff_in(self.norm3(tokens)).chunk(2, dim=-1)
        tokens = tokens + self.ff_out(value * F.gelu(gate))
        return x + to_picture(self.proj_out(tokens), x)
