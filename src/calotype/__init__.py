"""calotype: from a folder of pictures to a latent diffusion model of your own.

    model = calotype.load("runs/quickstart")
    pictures = model.sample(["a red heart"], num_images=4)

Names are looked up when first used, so that importing the package (and the command line) loads no torch.
"""

from typing import TYPE_CHECKING

from calotype.core.lazy import lazy_names

if TYPE_CHECKING:
    from calotype.images.grid import plot_images
    from calotype.inspection.training import train
    from calotype.latents import ConvVAE, decode_latents
    from calotype.network import UNet, dynamic_thresholding, get_network, guided
    from calotype.nn import CrossAttention, DownBlock, ResidualBlock, SpatialAttention, UpBlock, sinusoidal_embedding
    from calotype.pipeline import Diffuser, Pipeline, list_models, load
    from calotype.process import add_noise, posterior
    from calotype.sampling import sample

__version__ = "0.1.0"

_HOMES = {
    "calotype.images.grid": ["plot_images"],
    "calotype.inspection.training": ["train"],
    "calotype.latents": ["ConvVAE", "decode_latents"],
    "calotype.network": ["UNet", "dynamic_thresholding", "get_network", "guided"],
    "calotype.nn": [
        "CrossAttention",
        "DownBlock",
        "ResidualBlock",
        "SpatialAttention",
        "UpBlock",
        "sinusoidal_embedding",
    ],
    "calotype.pipeline": ["Diffuser", "Pipeline", "list_models", "load"],
    "calotype.process": ["add_noise", "posterior"],
    "calotype.sampling": ["sample"],
}
__all__ = [
    "ConvVAE",
    "CrossAttention",
    "Diffuser",
    "DownBlock",
    "Pipeline",
    "ResidualBlock",
    "SpatialAttention",
    "UNet",
    "UpBlock",
    "add_noise",
    "decode_latents",
    "dynamic_thresholding",
    "get_network",
    "guided",
    "list_models",
    "load",
    "plot_images",
    "posterior",
    "sample",
    "sinusoidal_embedding",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
