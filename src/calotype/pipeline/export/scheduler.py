"""The diffusers scheduler that samples our process, and what of ours it must agree with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.recipes import SamplingSection
from calotype.sampling import get_sampler
from calotype.sampling.grids import GridKind

MEND = "--set process.schedule=cosine --set loss.parameterization=v"
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
BETAS = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
DETERMINISTIC = ("ddim", "alpha", "euler")  # three names of one step
MOST_CHECKED = 20


@dataclass(frozen=True)
class Matching:
    """`shipped` is written; `checked` is the same without fresh noise, and agrees with our `sampler` on our `grid`.

    `num_steps` is what to sample with.
    """

    shipped: Any
    checked: Any
    sampler: str
    grid: GridKind
    num_steps: int
    shift: float = 1.0

    @property
    def checked_steps(self) -> int:
        """At most 20, a divisor of T: DDIM's steps lead T // K down, whatever level is visited next."""
        total = self.checked.config.get("num_train_timesteps", 1000)
        return max(k for k in range(1, MOST_CHECKED + 1) if total % k == 0)


def why_not_scheduler(process: Process, parameterization: str) -> str:
    """Why no scheduler of diffusers samples this process and prediction, in words; "" when one does."""
    if isinstance(process, VariancePreserving) and process.num_train_steps is None:
        return "its process has angles for levels, and diffusers' schedulers step through tables"
    known = {RectifiedFlow: ("flow",), VarianceExploding: ("edm",)}.get(type(process), tuple(PREDICTIONS))
    if parameterization in known:
        return ""
    return f"its network predicts {parameterization}, on its process diffusers' schedulers want {' or '.join(known)}"


def matching_scheduler(process: Process, parameterization: str, sampling: SamplingSection) -> Matching:
    """The scheduler for this process, as near to the recipe's sampler as diffusers has one."""
    if isinstance(process, VariancePreserving):
        return _for_table(process, parameterization, sampling)
    import diffusers

    steps = sampling.num_steps if sampling.sampler in DETERMINISTIC else get_sampler("euler").num_steps
    if isinstance(process, VarianceExploding):
        # latents are standardised: sigma_data is 1, not the .5 of pictures
        edm = diffusers.EDMEulerScheduler(sigma_min=process.t_min, sigma_max=process.t_max, sigma_data=1.0)
        return Matching(edm, edm, "euler", "karras", steps)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=sampling.shift)
    return Matching(flow, flow, "euler", "trailing", steps, sampling.shift)


def set_steps(scheduler: Any, num_steps: int) -> None:
    """Visit our levels: a flow's scheduler has to be given them, i = 0 ... K - 1: 1 - i/K, which it shifts itself."""
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        scheduler.set_timesteps(sigmas=[1 - i / num_steps for i in range(num_steps)])
    else:
        scheduler.set_timesteps(num_steps)


def _for_table(process: VariancePreserving, parameterization: str, sampling: SamplingSection) -> Matching:
    import diffusers

    common: dict[str, Any] = {
        **_betas(process),
        "prediction_type": PREDICTIONS[parameterization],
        "timestep_spacing": "trailing",
    }
    ddim = diffusers.DDIMScheduler(**common, clip_sample=False)
    without_signal = not process.signal_rate(torch.tensor(process.t_max))
    wanted, steps = sampling.sampler, sampling.num_steps
    if wanted == "ddpm":
        ddpm = diffusers.DDPMScheduler(**common, clip_sample=False, variance_type="fixed_small")
        return Matching(ddpm, ddim, "ddim", "trailing", steps)
    # DPMSolverMultistepScheduler moves a level without signal to 2^-24 of it, and its second step then extrapolates
    if wanted.startswith("dpm++2m") and not without_signal:
        solver = diffusers.DPMSolverMultistepScheduler
        checked = solver(**common)
        shipped = solver(**common, algorithm_type="sde-dpmsolver++") if wanted.endswith("sde") else checked
        return Matching(shipped, checked, "dpm++2m", "trailing", steps)
    return Matching(ddim, ddim, "ddim", "trailing", steps if wanted in DETERMINISTIC else get_sampler("ddim").num_steps)


def _betas(process: VariancePreserving) -> dict[str, Any]:
    """The table by their name for it where that gives our signal rates to 1e-6, else as a list."""
    import diffusers

    settings = process.config()
    named: dict[str, Any] = {
        "num_train_timesteps": process.num_train_steps,
        "beta_schedule": BETAS[settings["schedule"]],
        "rescale_betas_zero_snr": settings["zero_terminal_snr"],
        **{name: settings[name] for name in ("beta_start", "beta_end") if name in settings},
    }
    alpha_bar = process.alpha_bar(torch.arange(int(process.t_max) + 1))
    theirs: Any = diffusers.DDIMScheduler(**named)
    apart = theirs.alphas_cumprod.double().sqrt() - alpha_bar[1:].sqrt()
    if float(apart.abs().max()) <= 1e-6:
        return named
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return {"num_train_timesteps": process.num_train_steps, "trained_betas": betas.tolist()}
