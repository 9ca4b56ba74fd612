"""The samplers by name."""

from dataclasses import dataclass

from calotype.core.errors import UserError, nearest
from calotype.core.types import Step
from calotype.sampling.alpha import alpha_step
from calotype.sampling.ddim import ddim_step
from calotype.sampling.ddpm import ddpm_step
from calotype.sampling.dpm_solver import dpmpp_2m_sde_step, dpmpp_2m_step
from calotype.sampling.euler import euler_step
from calotype.sampling.grids import GridKind
from calotype.sampling.heun import heun_step


@dataclass(frozen=True)
class Sampler:
    """A step with what it is usually run with: grid kind (None: the process's own), number of steps, and whether it
    draws noise. `passes` is how often the network is asked per step (once at the landing).
    """

    name: str
    step: Step
    needs_noise: bool
    grid: GridKind | None = None
    num_steps: int = 20
    passes: int = 1

    def network_passes(self, num_steps: int) -> int:
        """How often a run of num_steps asks the denoiser; the landing is always one pass."""
        return self.passes * (num_steps - 1) + 1


SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Sampler("ddpm", ddpm_step, needs_noise=True, num_steps=250),
        Sampler("ddim", ddim_step, needs_noise=False, num_steps=50),
        Sampler("alpha", alpha_step, needs_noise=False, grid="cube_root", num_steps=70),
        Sampler("euler", euler_step, needs_noise=False, num_steps=50),
        Sampler("dpm++2m", dpmpp_2m_step, needs_noise=False),
        Sampler("dpm++2m-sde", dpmpp_2m_sde_step, needs_noise=True, num_steps=30),
        Sampler("heun", heun_step, needs_noise=False, grid="log_snr", passes=2),
    )
}


def get_sampler(name: str) -> Sampler:
    """The sampler of this name; UserError with the nearest known one otherwise."""
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler '{name}'", nearest(name, SAMPLERS))
    return SAMPLERS[name]
