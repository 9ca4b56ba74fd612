"""Building blocks that VAE and U-Net share."""

from calotype.nn.attention import CrossAttention, SpatialAttention
from calotype.nn.blocks import DownBlock, ResidualBlock, UpBlock
from calotype.nn.embeddings import sinusoidal_embedding, timestep_embedding

__all__ = [
    "CrossAttention",
    "DownBlock",
    "ResidualBlock",
    "SpatialAttention",
    "UpBlock",
    "sinusoidal_embedding",
    "timestep_embedding",
]
