"""The denoising network, its condition, and the wrappers that make it D(x_t, t, cond) = x0_hat."""

from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import dynamic_thresholding, guided, thresholded

__all__ = ["Condition", "NetworkDenoiser", "dynamic_thresholding", "guided", "thresholded"]
