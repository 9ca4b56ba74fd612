"""Two trials of a model: its errors on latents of real pictures, and a few samples beside real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.core.random import normal
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.latents import LatentSet
from calotype.latents.health_measures import spread_evenly
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.unet import UNet
from calotype.pipeline.conditions import Conditions
from calotype.pipeline.pipeline import Pipeline
from calotype.process import Process, add_noise, sample_t
from calotype.sampling import get_sampler

LEAST = 8  # pictures below which an error says nothing
MOST, BATCH, LEVELS = 256, 64, 8
PASSES = 3200  # rows of the network that samples may take
FEWEST_DRAWN, MOST_DRAWN, MOST_STEPS = 16, 48, 100


@dataclass(frozen=True)
class Errors:
    """x0 errors (n,) of the same pictures at the same noise: asked for what they are, for what others are, for nothing.

    Without conditions the three are one.
    """

    asked: Tensor
    shuffled: Tensor
    nothing: Tensor


@dataclass(frozen=True)
class Trial:
    """The averaged weights on training and held-out pictures; `live` and `averaged` on held-out ones if there are.

    `ignorance` is the error of a denoiser that knows no more of its pictures than their variance, 1.
    """

    trained: Errors
    held_out: Errors | None
    live: Tensor
    averaged: Tensor
    ignorance: float


@dataclass(frozen=True)
class Drawn:
    """Samples: pictures (n, 3, h, w) and latents (n, c, h, w), at the model's own settings and without guidance.

    `real` and `real_x0` are pictures that were asked for by the same words, where there are any.
    """

    images: Tensor
    x0: Tensor
    unguided_x0: Tensor
    real: Tensor | None
    real_x0: Tensor | None
    rebuilt: Tensor | None
    num_steps: int
    paired: bool


@torch.no_grad()
def try_out(
    model: Pipeline,
    latents: LatentSet,
    conditions: Conditions,
    pictures: PictureSet,
    weights: dict[str, dict[str, Tensor]],
) -> Trial:
    """Measure the errors of the averaged weights, and of the live ones beside them; deterministic."""
    held, train = pictures.held_out_ids, spread_evenly(pictures.train_ids, MOST)
    asked_for = _asker(model, latents, conditions)
    denoisers = {}
    for name in ("network", "ema"):
        network = UNet(model.recipe.network)
        network.load_state_dict(weights[name])
        network = network.to(model.device).eval()
        denoisers[name] = NetworkDenoiser(network, model.process, model.recipe.loss.parameterization)
    judged = spread_evenly(held, MOST) if len(held) >= 4 * LEAST else train
    live, averaged = (asked_for(denoisers[name], judged, judged, False) for name in ("network", "ema"))
    held_out = _errors(asked_for, denoisers["ema"], judged) if judged is not train else None
    trained = _errors(asked_for, denoisers["ema"], train)
    return Trial(trained, held_out, live, averaged, _ignorance(model.process))


def _ignorance(process: Process) -> float:
    """Mean of b^2 / (a^2 + b^2) over the levels: the error of the best answer that is linear in x_t."""
    t = _levels(process, LEVELS)
    a, b = process.signal_rate(t), process.noise_rate(t)
    return float((b.square() / (a.square() + b.square())).mean())


def _levels(process: Process, count: int) -> Tensor:
    return sample_t(process, (torch.arange(count) % LEVELS + 0.5) / LEVELS)


Asker = Callable[[NetworkDenoiser, Tensor, Tensor, bool], Tensor]


def _errors(asked_for: Asker, denoiser: NetworkDenoiser, ids: Tensor) -> Errors:
    others = ids.roll(len(ids) // 2)  # everyone gets what belongs to another
    return Errors(
        asked_for(denoiser, ids, ids, False),
        asked_for(denoiser, ids, others, False),
        asked_for(denoiser, ids, ids, True),
    )


def _asker(model: Pipeline, latents: LatentSet, conditions: Conditions) -> Asker:
    """Errors (n,) of pictures `ids` when asked for what `words` are, or for nothing."""
    process = model.process

    def errors(denoiser: NetworkDenoiser, ids: Tensor, words: Tensor, nothing: bool) -> Tensor:
        found = []
        for part, others in zip(ids.split(BATCH), words.split(BATCH), strict=True):
            t = _levels(process, len(part))
            x0 = latents.standardize(latents.posterior(part)[0])
            x_t = add_noise(process, x0, t, normal(0, "doctor", 0, part, latents.shape))
            condition: Condition = conditions.batch(others)
            condition = (condition.dropped() if nothing else condition).to(model.device)
            x0_hat = denoiser(x_t.to(model.device), t.to(model.device), condition)
            found.append((x0_hat.cpu() - x0).square().mean((1, 2, 3)))
        return torch.cat(found)

    return errors


@torch.no_grad()
def draw(model: Pipeline, pictures: PictureSet | None) -> Drawn:
    """A few samples with fixed seeds; fewer where the model's own sampler takes long, which is cut to 100 steps."""
    own = model.recipe.sampling
    num_steps = min(own.num_steps, MOST_STEPS)
    conditional = model.captioned or bool(model.classes)
    passes = get_sampler(own.sampler).network_passes(num_steps) * (1 + 2 * conditional)
    count = min(MOST_DRAWN, max(FEWEST_DRAWN, PASSES // passes))
    ids = None if pictures is None else spread_evenly(pictures.train_ids, count)
    prompts, labels = _words(model, pictures, ids, count)

    def latents_at(scale: float | None) -> Tensor:
        each = count if prompts is None and labels is None else 1
        frames = model.stream(
            prompts, labels=labels, num_images=each, seed=0, num_steps=num_steps, guidance_scale=scale
        )
        *_, last = frames
        return last.x0_hat

    x0 = latents_at(None)
    unguided = latents_at(1.0) if conditional and own.guidance_scale != 1 else x0
    real = real_x0 = rebuilt = None
    if pictures is not None and ids is not None and len(ids) >= LEAST:
        real = to_float(pictures.pixels[ids])
        real_x0 = model.encode(real)
        rebuilt = model.decode(real_x0).cpu()
    return Drawn(
        model.decode(x0).cpu(),
        x0.cpu(),
        unguided.cpu(),
        real,
        None if real_x0 is None else real_x0.cpu(),
        rebuilt,
        num_steps,
        paired=prompts is not None or labels is not None,
    )


def _words(
    model: Pipeline, pictures: PictureSet | None, ids: Tensor | None, count: int
) -> tuple[list[str] | None, list[str] | None]:
    """Prompts or labels to ask for: those of pictures `ids`, else the model's examples."""
    if pictures is not None and ids is not None:
        captions = [pictures.captions[i] for i in ids.tolist()]
        known = [pictures.labels[i] for i in ids.tolist()]
        if model.captioned and all(captions):
            return [caption or "" for caption in captions], None
        if model.classes and all(known):
            return None, [label or "" for label in known]
    if model.captioned and model.examples:
        return [model.examples[i % len(model.examples)] for i in range(count)], None
    if model.classes:
        return None, [model.classes[i % len(model.classes)] for i in range(count)]
    return None, None
