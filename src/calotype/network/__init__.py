"""The denoising network, its condition, and the wrappers that make it D(x_t, t, cond) = x0_hat."""

from calotype.network.conditioning import Condition, text_context
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import Threshold, autoguided, dress, guided
from calotype.network.thresholding import clipped, dynamic_thresholding, thresholded
from calotype.network.unet import UNet, UNetConfig, get_network

__all__ = [
    "Condition",
    "NetworkDenoiser",
    "Threshold",
    "UNet",
    "UNetConfig",
    "autoguided",
    "clipped",
    "dress",
    "dynamic_thresholding",
    "get_network",
    "guided",
    "text_context",
    "thresholded",
]
