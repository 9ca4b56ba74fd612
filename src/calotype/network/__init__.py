"""The denoising network, its condition, and the wrappers that make it D(x_t, t, cond) = x0_hat."""

from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import dynamic_thresholding, guided, thresholded
from calotype.network.unet import UNet, UNetConfig, get_network

__all__ = [
    "Condition",
    "NetworkDenoiser",
    "UNet",
    "UNetConfig",
    "dynamic_thresholding",
    "get_network",
    "guided",
    "thresholded",
]
