"""calotype: from a folder of pictures to a latent diffusion model of your own.

    model = calotype.load("runs/quickstart")
    pictures = model.sample(["a red heart"], num_images=4)

Names are looked up when first used, so that importing the package (and the command line) loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_HOME = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'calotype' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
