"""From noise to x0: step functions, grids, and the only loop. Any denoiser(x_t, t, cond) -> x0_hat, any process."""

from calotype.sampling.alpha import alpha_step
from calotype.sampling.ddim import ddim_step
from calotype.sampling.ddpm import ddpm_step
from calotype.sampling.dpm_solver import dpmpp_2m_sde_step, dpmpp_2m_step
from calotype.sampling.euler import euler_step
from calotype.sampling.grids import timestep_grid
from calotype.sampling.heun import heun_step
from calotype.sampling.loop import Frame, sample, sample_frames
from calotype.sampling.samplers import SAMPLERS, Sampler, get_sampler

__all__ = [
    "SAMPLERS",
    "Frame",
    "Sampler",
    "alpha_step",
    "ddim_step",
    "ddpm_step",
    "dpmpp_2m_sde_step",
    "dpmpp_2m_step",
    "euler_step",
    "get_sampler",
    "heun_step",
    "sample",
    "sample_frames",
    "timestep_grid",
]
