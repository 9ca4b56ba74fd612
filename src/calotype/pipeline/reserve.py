"""What a timed run keeps back from training for its last samples and its report."""

from __future__ import annotations

import time

import torch

from calotype.network.unet import UNet
from calotype.recipes import Recipe
from calotype.sampling import get_sampler

FINAL_SAMPLES = 32
REPORT_PICTURES, REPORT_STEPS = 64, 20  # about what the report draws
FIXED_SECONDS = 8.0  # decoding, the bundle, the report's page


@torch.no_grad()
def finish_seconds(recipe: Recipe, device: torch.device) -> float:
    """Seconds that the end of a run will take: one pass of the network is timed, sampling repeats it.

    A recipe of 1,000 steps, or a network of 60 million weights, needs minutes for what another does in a second.
    """
    shape, sampling = recipe.network, recipe.sampling
    guided = bool(shape.text_dim or shape.num_classes) and sampling.guidance_scale != 1
    rows = FINAL_SAMPLES * (1 + guided)
    side = recipe.size // recipe.vae.network.downsampling
    with torch.random.fork_rng():
        network = UNet(shape).to(device).eval()
    x_t, level = torch.zeros(rows, shape.in_channels, side, side, device=device), torch.zeros(rows, device=device)
    network(x_t, level)  # the first pass of a process is slower than the rest
    started = time.monotonic()
    float(network(x_t, level).sum())
    one_pass = time.monotonic() - started
    passes = get_sampler(sampling.sampler).network_passes(sampling.num_steps)
    return FIXED_SECONDS + one_pass * (passes + REPORT_PICTURES / FINAL_SAMPLES * REPORT_STEPS)
