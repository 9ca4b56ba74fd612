"""diffusers' schedulers as an independent reference, in double precision and as they are shipped.

Their modules write `torch.float32` and `np.float32` for every table and for the sample itself. The double-precision
reference lets these words mean float64, which replaces all of a scheduler's tables by float64 ones and lifts the limit
its own rounding would set. Nothing else of theirs is touched, and no table of ours enters their side.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from calotype.core.types import Denoiser, Step
from calotype.process import Process, VariancePreserving
from calotype.sampling import sample_frames

SCHEDULERS = {
    "DDPMScheduler": "scheduling_ddpm",
    "DDIMScheduler": "scheduling_ddim",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "EDMEulerScheduler": "scheduling_edm_euler",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "FlowMatchEulerDiscreteScheduler": "scheduling_flow_match_euler_discrete",
    "FlowMatchHeunDiscreteScheduler": "scheduling_flow_match_heun_discrete",
}
# The same schedule made by us, and their settings for it.
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SHORT = {"beta_schedule": "linear", "beta_start": 0.005, "beta_end": 0.6, "num_train_timesteps": 20}
SCHEDULES: dict[str, tuple[Process, dict[str, Any]]] = {
    "linear": (VariancePreserving.linear(), LINEAR),
    "scaled-linear": (VariancePreserving.scaled_linear(), SCALED),
    "cosine": (VariancePreserving.cosine(), COSINE),
    "short-linear": (VariancePreserving.linear(20, 0.005, 0.6), SHORT),
    "linear-zero": (VariancePreserving.linear(zero_terminal_snr=True), {**LINEAR, "rescale_betas_zero_snr": True}),
    "scaled-zero": (
        VariancePreserving.scaled_linear(zero_terminal_snr=True),
        {**SCALED, "rescale_betas_zero_snr": True},
    ),
    "cosine-zero": (VariancePreserving.cosine(zero_terminal_snr=True), {**COSINE, "rescale_betas_zero_snr": True}),
}
# What the network predicts, by our name and theirs, and on which schedules: eps needs signal at the noisiest level.
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
CASES = [
    (schedule, parameterization)
    for schedule in ("linear", "scaled-linear", "cosine", "short-linear", "linear-zero", "cosine-zero")
    for parameterization in PREDICTIONS
    if not (parameterization == "eps" and schedule.endswith("zero"))
]


class Doubled:
    """torch or numpy, save that float32 means float64."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@dataclass(frozen=True)
class Reference:
    """Makes their schedulers in one precision; `tolerance` is what may lie between our path and theirs."""

    precision: Literal["double", "shipped"]

    @property
    def tolerance(self) -> float:
        """Of the largest |x| of the same state: rounding in double precision, their float32 tables as shipped."""
        return 1e-10 if self.precision == "double" else 1e-5

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "double" else torch.float32

    def scheduler(self, name: str, **settings: Any) -> Any:
        """Their scheduler, which clips no x0 unless `settings` ask for it."""
        kind = getattr(_module(name), name)
        if "clip_sample" in kind.__init__.__annotations__:
            settings.setdefault("clip_sample", False)
        scheduler = kind(**settings)
        table = scheduler.sigmas if hasattr(scheduler, "sigmas") else scheduler.alphas_cumprod
        assert table.dtype == self.dtype
        return scheduler

    def double(self, patch: pytest.MonkeyPatch) -> "Reference":
        """Let their float32 mean float64 for as long as `patch` lasts."""
        for name in SCHEDULERS:
            patch.setattr(_module(name), "torch", Doubled(torch))
            patch.setattr(_module(name), "np", Doubled(np), raising=False)
        return self


def _module(name: str) -> ModuleType:
    # Imported on first use: seconds that collecting the other tests need not spend.
    return importlib.import_module(f"diffusers.schedulers.{SCHEDULERS[name]}")


def network(x_in: Tensor, time: Tensor, cond: Any = None) -> Tensor:
    """A fixed smooth map (b, c, h, w), float64: it mixes channels and neighbours, bends, and tells times apart."""
    time = time.to(torch.float32).to(x_in.dtype).reshape(-1, 1, 1, 1)
    channels = torch.arange(x_in.shape[1], dtype=x_in.dtype)
    mix = torch.cos(2 * channels[:, None] + channels)
    mixed = torch.einsum("dc,bchw->bdhw", mix, x_in)
    return torch.sin(0.7 * mixed + time / 160 + torch.tanh(time)) + 0.3 * torch.tanh(x_in.roll(1, -1)) + 0.1


def start(scale: float = 1.0) -> Tensor:
    """x_T (3, 4, 4, 4), rows of different size."""
    noise = torch.randn(3, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    return scale * noise * torch.tensor([0.6, 1.0, 1.5], dtype=torch.float64).reshape(-1, 1, 1, 1)


def fresh_noise(num_steps: int, seed: int = 3) -> list[Tensor]:
    """The noise of every step: what a generator of this seed draws, one (3, 4, 4, 4) after another."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 4, 4, dtype=torch.float64, generator=generator) for _ in range(num_steps)]


class Tape:
    """The network, told the recorded times in order instead of the one it is given."""

    def __init__(self, times: Tensor) -> None:
        self.times = iter(times)

    def __call__(self, x_in: Tensor, time: Tensor, cond: Any = None) -> Tensor:
        return network(x_in, next(self.times).expand(len(x_in)), cond)


def levels(timesteps: Tensor) -> Tensor:
    """Our grid for their timesteps: t = timestep + 1, and the landing on 0."""
    return torch.cat([timesteps.double() + 1, torch.zeros(1, dtype=torch.float64)])


def our_path(
    denoiser: Denoiser, process: Process, x_T: Tensor, grid: Tensor, step: Step, noise: Sequence[Tensor] = ()
) -> list[Tensor]:
    """x_t at every level of `grid`, by the one loop."""
    source = (lambda i, x_t: noise[i]) if noise else None
    frames = sample_frames(denoiser, process, x_T, grid, step=step, noise=source, from_prior=False)
    return [frame.x_t for frame in frames]


def their_path(
    scheduler: Any,
    x_T: Tensor,
    *,
    predict: Callable[[Tensor, Tensor, Any], Tensor] = network,
    noise: Sequence[Tensor] = (),
    **options: Any,
) -> list[Tensor]:
    """Their x at every timestep, by their loop: scale the input, ask the network, step."""
    path = [x_T]
    for i, timestep in enumerate(scheduler.timesteps):
        if noise:
            options["variance_noise"] = noise[i]
        x_in = scheduler.scale_model_input(path[-1], timestep) if hasattr(scheduler, "scale_model_input") else path[-1]
        prediction = predict(x_in, timestep.expand(len(x_in)), None)
        path.append(scheduler.step(prediction, timestep, path[-1], **options).prev_sample)
    return path


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest |x|."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """Every state of two paths agrees, and the network's answers moved them."""
    assert len(ours) == len(theirs)
    worst = [difference(ours[i], theirs[i]) for i in range(len(ours))]
    # Not by their maximum, which passes over NaN.
    assert all(share <= tolerance for share in worst), f"states differ by {worst}"
    assert difference(ours[-1], ours[0]) > 0.1
