"""Guidance and the sampling loop in one object, by the names of the walkthrough this library grew from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import guided
from calotype.sampling import ddim_step, sample, timestep_grid


class Diffuser:
    """Denoise with classifier-free guidance of weight `class_guidance`, in `diffusion_steps` steps.

    x_next = signal' x0_hat + (noise' / noise) (x_t - signal x0_hat): the step consistent with the denoiser's process.
    """

    def __init__(self, denoiser: NetworkDenoiser, class_guidance: float = 4.0, diffusion_steps: int = 70) -> None:
        self.process = denoiser.process
        self.guided: Denoiser = guided(denoiser, scale=class_guidance)
        self.diffusion_steps = diffusion_steps

    def predict_x_zero(self, x_t: Tensor, labels: Any, noise_level: Tensor) -> Tensor:
        """x0_hat (b, c, h, w) = w D(x_t, t, y) + (1 - w) D(x_t, t, null); noise_level is the process's t."""
        return self.guided(x_t, noise_level, labels)

    def reverse_diffusion(self, seeds: Tensor, labels: Any) -> Tensor:
        """x0 (b, c, h, w) from standard normal `seeds` (b, c, h, w) and conditions `labels`."""
        x_t = self.process.prior(tuple(seeds.shape), seeds)
        grid = timestep_grid(self.process, num_steps=self.diffusion_steps)
        return sample(self.guided, self.process, x_t, grid, step=ddim_step, cond=labels)
