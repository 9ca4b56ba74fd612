"""Guidance and the sampling loop in one object, by the names of the walkthrough this library grew from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from calotype.core.types import Denoiser
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.guidance import dress
from calotype.recipes import SamplingSection
from calotype.sampling import get_sampler, sample_frames, timestep_grid
from calotype.sampling.loop import Frame, NoiseSource


class Diffuser:
    """Denoise with classifier-free guidance of weight `class_guidance` (eq. 36), in `diffusion_steps` steps.

    The walkthrough's steps are the default: x_next = signal' x0_hat + (noise' / noise) (x_t - signal x0_hat) (eq. 29)
    down the cube-root grid, consistent with the process of its denoiser. `settings` choose any other sampler, grid and
    wrappers (eq. 42); `bound` is the codec's, for thresholding; `weak` guides by its own mistakes (eq. 39). `labels`
    are a Condition, pooled text vectors (b, d), or None for nothing; `null_cond` is what guidance leads away from.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        class_guidance: float = 4.0,
        diffusion_steps: int = 70,
        *,
        settings: SamplingSection | None = None,
        null_cond: Any = None,
        weak: Denoiser | None = None,
        bound: float = 1.0,
    ) -> None:
        settings = settings or SamplingSection(sampler="alpha")
        sampler = get_sampler(settings.sampler)
        self.process, self.step = denoiser.process, sampler.step
        self.grid = timestep_grid(self.process, diffusion_steps, settings.grid or sampler.grid, shift=settings.shift)
        self.guided = dress(
            denoiser,
            guidance_scale=class_guidance,
            null_cond=null_cond,
            guidance_interval=settings.guidance_interval,
            guidance_rescale=settings.guidance_rescale,
            weak=weak,
            weak_scale=settings.autoguidance_scale,
            threshold=settings.threshold,
            percentile=settings.percentile,
            bound=bound,
        )

    def predict_x_zero(self, x_t: Tensor, labels: Condition | Tensor | None, noise_level: Tensor) -> Tensor:
        """x0_hat (b, c, h, w) = w D(x_t, t, y) + (1 - w) D(x_t, t, null); noise_level is the process's t."""
        return self.guided(x_t, noise_level, _condition(labels))

    def reverse_diffusion(
        self, seeds: Tensor, labels: Condition | Tensor | None, noise: NoiseSource | None = None
    ) -> Tensor:
        """x0 (b, c, h, w) from standard normal `seeds` (b, c, h, w) and conditions `labels`."""
        *_, last = self.frames(seeds, labels, noise)
        return last.x_t

    def frames(
        self, seeds: Tensor, labels: Condition | Tensor | None, noise: NoiseSource | None = None
    ) -> Iterator[Frame]:
        """As `reverse_diffusion`, level by level; noise(i, x_t) is what a stochastic sampler draws at step i."""
        x_t = self.process.prior(tuple(seeds.shape), seeds)
        cond = _condition(labels)
        return sample_frames(self.guided, self.process, x_t, self.grid, step=self.step, cond=cond, noise=noise)


def _condition(labels: Condition | Tensor | None) -> Condition | None:
    return Condition.from_pooled(labels) if isinstance(labels, Tensor) else labels
