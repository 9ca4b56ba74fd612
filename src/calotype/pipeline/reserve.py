"""What a timed run keeps back from training for its last samples, its scores and its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from calotype.features import load_extractor
from calotype.latents import build_vae
from calotype.network.unet import UNet
from calotype.recipes import Recipe
from calotype.sampling import get_sampler
from calotype.training.journal import Budget

FINAL_SAMPLES = 32
REPORT_PICTURES = 56  # about what the report draws
FIXED_SECONDS = 20.0  # decoding, the bundle, the report's page, the doctor
WORTH_SCORING = 300.0  # seconds of training beside which scores are a small part; a shorter run is a trial
SCORING_SHARE = 0.08  # of a run's time that its own scores may take; `calotype evaluate` takes what it needs
MOST_PROMPTS, FEWEST_PROMPTS = 128, 32
PICTURES_A_PROMPT = 1.7  # held-out captions are asked for too, where there are any
SCORED_FEATURES = 1100  # pictures that the feature network sees, at most
SCORED_REBUILT = 2200  # pictures that go through the autoencoder and back
_TIMED_PICTURES = 16


@dataclass(frozen=True)
class Ending:
    """What a run does when its training is over: `prompts` it is scored with (0: it is not), and `seconds` in all."""

    prompts: int
    seconds: float


@torch.no_grad()
def plan_ending(recipe: Recipe, device: torch.device, budget: Budget) -> Ending:
    """Time a pass of each network, which the end will repeat, and choose what of it the budget bears.

    A recipe of 1,000 steps, or a network of 60 million weights, needs minutes for what another does in a second.
    """
    shape, sampling = recipe.network, recipe.sampling
    guided = bool(shape.text_dim or shape.num_classes) and sampling.guidance_scale != 1
    rows = FINAL_SAMPLES * (1 + guided)
    side = recipe.size // recipe.vae.network.downsampling
    with torch.random.fork_rng():
        network = UNet(shape).to(device).eval()
    x_t, level = torch.zeros(rows, shape.in_channels, side, side, device=device), torch.zeros(rows, device=device)
    one_pass = _seconds(lambda: network(x_t, level))
    picture = one_pass * get_sampler(sampling.sampler).network_passes(sampling.num_steps) / FINAL_SAMPLES
    prompts, scoring = _scoring(recipe, device, budget, picture)
    return Ending(prompts, FIXED_SECONDS + (FINAL_SAMPLES + REPORT_PICTURES) * picture + scoring)


def _scoring(recipe: Recipe, device: torch.device, budget: Budget, picture: float) -> tuple[int, float]:
    """Prompts to be scored with, and the seconds that takes; `picture` is the time to draw one."""
    if budget.rough_seconds < WORTH_SCORING or find_spec("efficientnet_lite_pytorch") is None:
        return 0, 0.0
    features = _seeing_seconds(recipe, device)
    each = PICTURES_A_PROMPT * picture
    prompts = min(MOST_PROMPTS, int((SCORING_SHARE * budget.rough_seconds - features) / each))
    return (prompts, features + prompts * each) if prompts >= FEWEST_PROMPTS else (0, 0.0)


def _seeing_seconds(recipe: Recipe, device: torch.device) -> float:
    """Of the feature network and the autoencoder, for a run's own scores."""
    with torch.random.fork_rng():
        extractor, vae = load_extractor(device=device), build_vae(recipe.vae.network).to(device).eval()
    images = torch.zeros(_TIMED_PICTURES, 3, recipe.size, recipe.size)
    features = _seconds(lambda: extractor(images))
    rebuilding = _seconds(lambda: vae.decode(vae.encode(images.to(device))[0]))
    return (SCORED_FEATURES * features + SCORED_REBUILT * rebuilding) / _TIMED_PICTURES


def _seconds(work: Callable[[], Tensor]) -> float:
    """Of one piece of work, after a first time that is not counted: that one is slower than the rest."""
    work()
    started = time.monotonic()
    float(work().sum())
    return time.monotonic() - started
