"""Building blocks that VAE and U-Net share."""

from calotype.nn.attention import CrossAttention, SpatialAttention
from calotype.nn.blocks import BlockOptions, DownBlock, ResidualBlock, UpBlock, attend
from calotype.nn.embeddings import sinusoidal_embedding, timestep_embedding
from calotype.nn.transformer import SpatialTransformer

__all__ = [
    "BlockOptions",
    "CrossAttention",
    "DownBlock",
    "ResidualBlock",
    "SpatialAttention",
    "SpatialTransformer",
    "UpBlock",
    "attend",
    "sinusoidal_embedding",
    "timestep_embedding",
]
