"""A data set of 64 pictures has an exact denoiser as well: samplers follow the true paths and end on a picture."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.sampling import SAMPLERS, sample, sample_frames, timestep_grid
from tests.sampling.oracles import PROCESSES, SECOND_ORDER, Pictures, log_snr_grid, remembering

SHAPE = (1, 4, 4)
BY_FAMILY = pytest.mark.parametrize("family", ["linear", "angle", "flow", "exploding"])


def pictures() -> Tensor:
    return torch.randn(64, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def starts(process: Any, count: int) -> Tensor:
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return process.prior((count, *SHAPE), noise)


@pytest.mark.parametrize("family", ["cosine", "flow", "exploding"])
def test_paths_follow_a_fine_reference(family: str) -> None:
    """16 paths, compared at 8 levels on the way with those of Heun in 512 steps: typical distance, per coordinate."""
    process = remembering(PROCESSES[family])
    denoiser, x_T = Pictures(process, pictures()), starts(process, 16)
    fine = log_snr_grid(process, 512)
    scale = (process.signal_rate(fine) ** 2 + process.noise_rate(fine) ** 2).sqrt()[::64].reshape(-1, 1, 1, 1, 1)

    def path(name: str, num_steps: int) -> Tensor:
        grid = fine[:: 512 // num_steps]
        frames = list(sample_frames(denoiser, process, x_T, grid, step=SAMPLERS[name].step))
        return torch.stack([frame.x_t for frame in frames[:: num_steps // 8]]) / scale

    reference = path("heun", 512)
    for name in ("ddim", "alpha", "euler", "dpm++2m", "heun"):
        off = [float((path(name, k) - reference).square().mean(dim=(0, 2, 3, 4)).sqrt().median()) for k in (32, 64)]
        assert off[0] < (0.006 if name in SECOND_ORDER else 0.025)
        assert off[1] < off[0] * (0.3 if name in SECOND_ORDER else 0.55)


@BY_FAMILY
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sample_is_a_picture(family: str, name: str) -> None:
    process, sampler = remembering(PROCESSES[family]), SAMPLERS[name]
    denoiser, generator = Pictures(process, pictures()), torch.Generator().manual_seed(2)
    grid = timestep_grid(process, 30, sampler.grid if family != "exploding" else None)
    x0 = sample(
        denoiser, process, starts(process, 64), grid, step=sampler.step,
        noise=lambda i, x_t: torch.randn(x_t.shape, dtype=x_t.dtype, generator=generator),
    )  # fmt: skip
    assert float(denoiser.distance(x0).max()) < 1e-6
    found = torch.cdist(x0.flatten(1), pictures().flatten(1)).argmin(dim=1)
    assert len(found.unique()) > 25  # of 64 draws with replacement about 41 differ
