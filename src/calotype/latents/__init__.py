"""Pictures to latents and back: the VAE, the codec that standardises, the cache of encoded pictures."""

from calotype.latents.cache import LatentSet, encode_pictures
from calotype.latents.codec import Codec, LatentStatistics, decode_latents
from calotype.latents.vae import ConvVAE, VAEConfig, kl_divergence, reparameterize

__all__ = [
    "Codec",
    "ConvVAE",
    "LatentSet",
    "LatentStatistics",
    "VAEConfig",
    "decode_latents",
    "encode_pictures",
    "kl_divergence",
    "reparameterize",
]
