"""What the settings of stock diffusers classes say, in our configs; what calotype does not compute is refused."""

from __future__ import annotations

from textwrap import shorten
from typing import Any, NoReturn

from calotype.core.errors import UserError
from calotype.network.unet import UNetConfig
from calotype.pipeline.export.scheduler import BETAS, PREDICTIONS
from calotype.process import Parameterization
from calotype.recipes.recipe import ProcessSection, SamplingSection

BOUND = 2.81  # the 99.5 % quantile of |N(0, 1)|: where thresholding clamps latents nobody measured
MEND = "calotype has no such network; keep it in diffusers"
# What our U-Net computes; every other setting of UNet2DModel is either read or without effect.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}
STEPPED = {"DDPMScheduler": ("ddpm", 250), "DPMSolverMultistepScheduler": ("dpm++2m", 20)}
FLOW, EDM = "FlowMatchEulerDiscreteScheduler", ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


def unet_config(settings: Any) -> UNetConfig:
    """Our config of a UNet2DModel's. UserError that names the first setting calotype has no counterpart for."""
    for name, known in COMPUTED.items():
        if settings[name] not in known:
            _refuse(name, settings[name])
    widths, groups = tuple(settings["block_out_channels"]), settings["norm_num_groups"]
    down, up = list(settings["down_block_types"]), list(settings["up_block_types"])
    if not set(down) <= set(DOWN):
        _refuse("down_block_types", down)
    if up != [name.replace("Down", "Up") for name in reversed(down)]:
        _refuse("up_block_types", up)
    if settings["in_channels"] != settings["out_channels"]:
        _refuse("out_channels", settings["out_channels"])
    scale_shift, middle = settings["resnet_time_scale_shift"] == "scale_shift", settings["add_attention"]
    middle_groups = settings["attn_norm_num_groups"] or (None if scale_shift else groups)
    if middle and middle_groups != groups:
        _refuse("attn_norm_num_groups", settings["attn_norm_num_groups"])
    attention = tuple(DOWN[name] for name in down)
    attended = [c for c, here in zip(widths, attention, strict=True) if here] + [widths[-1]] * middle
    head_channels = settings["attention_head_dim"]
    if head_channels and any(width % head_channels for width in attended):
        _refuse("attention_head_dim", head_channels)
    emb_channels = settings["time_embedding_dim"] or 4 * widths[0]
    return UNetConfig(
        family="diffusers",
        in_channels=settings["in_channels"],
        channels=widths,
        blocks_per_level=settings["layers_per_block"],
        middle_blocks=2,
        middle_attention=middle,
        skips="block",
        attention=attention,
        head_channels=head_channels or max(widths),  # null is one head
        emb_channels=emb_channels,
        condition_channels=emb_channels,
        scale_shift=scale_shift,
        norm_groups=groups,
        norm_eps=settings["norm_eps"],
        dropout=settings["dropout"],
    )


def read_scheduler(settings: dict[str, Any]) -> tuple[ProcessSection, Parameterization, SamplingSection, float]:
    """Process, prediction, sampling and the bound on x0_hat that a scheduler's settings describe."""
    name, steps = settings.get("_class_name"), settings.get("num_train_timesteps", 1000)
    euler = {"sampler": "euler", "num_steps": 50, "guidance_scale": 1.0}
    if name == FLOW:
        if steps != 1000:  # the network is told 1000 t
            _refuse("num_train_timesteps", steps)
        sampling = SamplingSection.parse({**euler, "shift": settings.get("shift", 1.0)}, str(name))
        return ProcessSection(schedule="rectified-flow"), "flow", sampling, BOUND
    if name in EDM:
        for key, known, default in (("sigma_data", 1, 0.5), ("prediction_type", "epsilon", "epsilon")):
            if settings.get(key, default) != known:
                _refuse(key, settings.get(key, default))
        sigmas = {key: settings[key] for key in ("sigma_min", "sigma_max") if key in settings}
        process = ProcessSection(schedule="variance-exploding", **sigmas)
        return process, "edm", SamplingSection.parse(euler, str(name)), BOUND
    if "beta_schedule" not in settings:
        _refuse("scheduler", name)
    process, parameterization = _table(settings, steps)
    sampler, num_steps = STEPPED.get(str(name), ("ddim", 50))
    clipping = bool(settings.get("clip_sample"))
    sampling = SamplingSection(
        sampler=sampler,
        num_steps=min(num_steps, steps),
        grid="trailing",
        guidance_scale=1.0,
        threshold="static" if clipping else "none",
    )
    return process, parameterization, sampling, float(settings.get("clip_sample_range", 1.0)) if clipping else BOUND


def _table(settings: dict[str, Any], steps: int) -> tuple[ProcessSection, Parameterization]:
    """A scheduler with betas: our schedule of that name, and what the network predicts."""
    schedules: dict[str, Any] = {theirs: ours for ours, theirs in BETAS.items()}
    predictions: dict[str, Any] = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    schedule, prediction = settings["beta_schedule"], settings.get("prediction_type", "epsilon")
    for key in ("trained_betas", "thresholding", "use_flow_sigmas"):
        if settings.get(key):
            _refuse(key, settings[key])
    if schedule not in schedules:
        _refuse("beta_schedule", schedule)
    if prediction not in predictions:
        _refuse("prediction_type", prediction)
    ends = ("beta_start", "beta_end") if schedule != BETAS["cosine"] else ()
    given = {name: settings[name] for name in ends if name in settings}
    zero = bool(settings.get("rescale_betas_zero_snr"))
    process = ProcessSection(schedule=schedules[schedule], num_train_steps=steps, zero_terminal_snr=zero, **given)
    return process, predictions[prediction]


def latent_side(settings: Any) -> int:
    """Latent positions a side."""
    size = settings["sample_size"]
    sides = {size} if isinstance(size, int) else set(size or [])
    if len(sides) != 1:
        _refuse("sample_size", size)
    return int(sides.pop())


def _refuse(name: str, value: Any) -> NoReturn:
    raise UserError(f"the folder's {name} is {shorten(str(value), 60)}", MEND)
