"""Pictures to latents and back: the VAE, the codec that standardises, the cache of encoded pictures."""

from calotype.latents.cache import LatentSet
from calotype.latents.codec import Codec, LatentStatistics, decode_latents
from calotype.latents.encoding import encode_pictures, read_statistics
from calotype.latents.first_stage import FirstStage, FirstStageConfig, build_vae
from calotype.latents.pretrained import PretrainedVAE, PretrainedVAEConfig, load_pretrained_vae, pretrained_vae_config
from calotype.latents.vae import ConvVAE, VAEConfig, kl_divergence, reparameterize

__all__ = [
    "Codec",
    "ConvVAE",
    "FirstStage",
    "FirstStageConfig",
    "LatentSet",
    "LatentStatistics",
    "PretrainedVAE",
    "PretrainedVAEConfig",
    "VAEConfig",
    "build_vae",
    "decode_latents",
    "encode_pictures",
    "kl_divergence",
    "load_pretrained_vae",
    "pretrained_vae_config",
    "read_statistics",
    "reparameterize",
]
