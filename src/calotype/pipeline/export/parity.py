"""How far stock diffusers classes are from the model they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.random import seeded_noise
from calotype.network.conditioning import Condition
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.export.scheduler import Matching, set_steps
from calotype.pipeline.export.unet import diffusers_arguments
from calotype.recipes import SamplingSection

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline

NETWORK_LIMIT = 1e-4  # of the largest value
PICTURE_LIMIT = 1.0  # mean difference, in steps of 1/255


@torch.no_grad()
def parity(model: Pipeline, unet: Any, vae: Any, matching: Matching, cond: Condition) -> dict[str, float]:
    """The largest difference of U-Net, encoder and decoder as a share of the largest value, and that of pictures.

    The pictures are drawn for `cond` (b rows) with guidance and without fresh noise. UserError if any is too far off.
    """
    cond, generator = cond.to(model.device), torch.Generator().manual_seed(0)
    both = Condition.cat([cond, cond.dropped()])
    x_T = seeded_noise(torch.arange(len(cond)), 0, model.codec.latent_shape).to(model.device)
    x_t, time = torch.cat([x_T, x_T]), torch.linspace(0, 999, len(both), device=model.device)
    images = (2 * torch.rand(1, 3, model.size, model.size, generator=generator) - 1).to(model.device)
    decoded = model.codec.vae.decode(x_T[:1] * model.codec.std + model.codec.mean)
    measured = {
        "unet": _apart(
            model.network(x_t, time, both), unet(x_t, time, **diffusers_arguments(model.network, both)).sample
        ),
        "encoder": _apart(model.codec.encode(images), vae.encode(images).latent_dist.mean),
        "decoder": _apart(decoded, vae.decode(x_T[:1]).sample),
    }
    close = all(value <= NETWORK_LIMIT for value in measured.values())
    ours, theirs = our_picture(model, matching, x_T, cond), stock_picture(model, unet, vae, matching, x_T, cond)
    steps = 127.5 * (ours - theirs).abs()
    measured |= {"picture_mean_of_255": float(steps.mean()), "picture_max_of_255": float(steps.max())}
    if not (close and measured["picture_mean_of_255"] <= PICTURE_LIMIT):
        found = ", ".join(f"{name} {value:.2g}" for name, value in measured.items())
        raise UserError(f"stock diffusers does not give this model's pictures ({found})", "please report this model")
    return measured


def our_picture(model: Pipeline, matching: Matching, x_T: Tensor, cond: Condition) -> Tensor:
    """images (b, 3, H, W) from standard normal x_T (b, c, h, w) by our sampler."""
    settings = SamplingSection(sampler=matching.sampler, grid=matching.grid, shift=matching.shift)
    scale = model.recipe.sampling.guidance_scale
    diffuser = Diffuser(model.denoiser, scale, matching.checked_steps, settings=settings, null_cond=cond.dropped())
    return model.codec.decode(diffuser.reverse_diffusion(x_T, cond))


def stock_picture(model: Pipeline, unet: Any, vae: Any, matching: Matching, x_T: Tensor, cond: Condition) -> Tensor:
    """The same by their classes, in the loop that the exported README shows."""
    scheduler, scale = matching.checked, model.recipe.sampling.guidance_scale
    set_steps(scheduler, matching.checked_steps)
    asked = diffusers_arguments(model.network, Condition.cat([cond, cond.dropped()]))
    x = x_T * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        with_cond, without = unet(torch.cat([x_in, x_in]), t, **asked).sample.chunk(2)
        x = scheduler.step(without + scale * (with_cond - without), t, x).prev_sample
    return vae.decode(x).sample.clamp(-1, 1)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-12))
