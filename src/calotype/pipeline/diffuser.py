"""Guidance and the sampling loop in one object, by the names of the walkthrough this library grew from."""

from __future__ import annotations

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import guided
from calotype.sampling import alpha_step, sample, timestep_grid


class Diffuser:
    """Denoise with classifier-free guidance of weight `class_guidance` (eq. 36), in `diffusion_steps` alpha-steps.

    x_next = signal' x0_hat + (noise' / noise) (x_t - signal x0_hat) (eq. 29) down the cube-root grid: the walkthrough's
    sampler, made consistent with the process that its denoiser was trained on. `labels` are a Condition, or pooled text
    vectors (b, d), or None for nothing.
    """

    def __init__(self, denoiser: NetworkDenoiser, class_guidance: float = 4.0, diffusion_steps: int = 70) -> None:
        self.process = denoiser.process
        self.guided: Denoiser = guided(denoiser, scale=class_guidance)
        self.diffusion_steps = diffusion_steps

    def predict_x_zero(self, x_t: Tensor, labels: Condition | Tensor | None, noise_level: Tensor) -> Tensor:
        """x0_hat (b, c, h, w) = w D(x_t, t, y) + (1 - w) D(x_t, t, null); noise_level is the process's t."""
        return self.guided(x_t, noise_level, _condition(labels))

    def reverse_diffusion(self, seeds: Tensor, labels: Condition | Tensor | None) -> Tensor:
        """x0 (b, c, h, w) from standard normal `seeds` (b, c, h, w) and conditions `labels`."""
        x_t = self.process.prior(tuple(seeds.shape), seeds)
        grid = timestep_grid(self.process, num_steps=self.diffusion_steps, kind="cube_root")
        return sample(self.guided, self.process, x_t, grid, step=alpha_step, cond=_condition(labels))


def _condition(labels: Condition | Tensor | None) -> Condition | None:
    return Condition.from_pooled(labels) if isinstance(labels, Tensor) else labels
