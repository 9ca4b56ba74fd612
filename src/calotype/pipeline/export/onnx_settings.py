"""What the runner of an ONNX export reads: the levels of every sampler as plain numbers, and the model's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from calotype.core.errors import UserError
from calotype.process import RectifiedFlow, x0_from_prediction
from calotype.sampling import SAMPLERS, timestep_grid
from calotype.sampling.grids import GridKind

if TYPE_CHECKING:
    from calotype.network.denoiser import NetworkDenoiser
    from calotype.pipeline.pipeline import Pipeline

STEP_COUNTS = (4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 70, 100)


def runner_settings(model: Pipeline, text: dict[str, Any] | None) -> dict[str, Any]:
    """model.json: `levels` holds, for each grid and number of steps, the rows that `runner.Level` names."""
    sampling = model.recipe.sampling
    grids = {name: sampling.grid or sampler.grid or model.process.default_grid for name, sampler in SAMPLERS.items()}
    samplers = {
        name: {"grid": grids[name], "num_steps": sampler.num_steps, "stochastic": sampler.needs_noise}
        for name, sampler in SAMPLERS.items()
    }
    levels: dict[str, dict[str, list[list[float]]]] = {grid: {} for grid in grids.values()}
    for name, sampler in SAMPLERS.items():
        own = [sampling.num_steps] * (name == sampling.sampler)
        for count in sorted({*STEP_COUNTS, sampler.num_steps, *own}):
            try:
                grid = timestep_grid(model.process, count, cast(GridKind, grids[name]), shift=sampling.shift)
            except UserError:  # more steps than this process has levels
                continue
            levels[grids[name]].setdefault(str(count), level_rows(model.denoiser, grid))
    return {
        "format": "calotype-onnx",
        "format_version": 1,
        "name": model.facts.get("name", "a calotype model"),
        "image_size": model.size,
        "latent_shape": list(model.codec.latent_shape),
        "classes": model.classes,
        "text": text,
        "prior_scale": model.process.prior_scale,
        "straight": isinstance(model.process, RectifiedFlow),
        "sampling": {**sampling.model_dump(mode="json"), "bound": model.codec.statistics.bound},
        "samplers": samplers,
        "levels": levels,
        "data": model.facts.get("data", {}),
    }


def level_rows(denoiser: NetworkDenoiser, grid: torch.Tensor) -> list[list[float]]:
    """(t, a, b, time, scale, from_x, from_prediction) of each level of `grid`, the last of which is clean.

    x0_hat is linear in x_t and in the network's answer F (eq. 18): asked with (1, 0) and (0, 1) it gives its factors.
    """
    process, noisy = denoiser.process, grid[:-1]
    one, none = torch.ones_like(noisy), torch.zeros_like(noisy)
    columns = [
        noisy,
        process.signal_rate(noisy),
        process.noise_rate(noisy),
        process.network_time(noisy),
        process.input_scale(noisy),
        x0_from_prediction(denoiser.parameterization, process, one, noisy, none),
        x0_from_prediction(denoiser.parameterization, process, none, noisy, one),
    ]
    return [*torch.stack(columns, dim=1).tolist(), [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]]
