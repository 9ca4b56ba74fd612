"""Which pictures a step learned from, and which of them are the hardest for the weights as they are now."""

from __future__ import annotations

import torch
from torch import Tensor

from calotype.core.progress import Silent
from calotype.core.random import batch_ids
from calotype.images.pixels import to_float
from calotype.inspection.doctor.evidence import Evidence, Unknown
from calotype.network.unet import UNet
from calotype.pipeline.intake import mirrored
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.engine import NOISE_BINS
from calotype.training.objective import Losses, Objective
from calotype.training.vae_objective import VAEObjective

SHOWN = 8
MOST_ROWS = 1600  # samples that are looked at again


@torch.no_grad()
def samples_at(evidence: Evidence, stage: str, step: int) -> list[str]:
    """Names of the pictures with the largest errors among those of the window of steps that ends with `step`.

    The losses of a step are a pure function of weights, seed and step: they are taken again, with the newest weights.
    Empty where there are none any more.
    """
    try:
        objective = _vae(evidence) if stage == "vae" else _denoiser(evidence)
    except Unknown:
        return []
    config = (evidence.recipe.vae if stage == "vae" else evidence.recipe).training
    steps = range(max(0, step - config.log_every), step)[: max(1, MOST_ROWS // config.batch_size)]
    batches = [batch_ids(evidence.recipe.seed, each, config.batch_size, objective.num_samples) for each in steps]
    errors = _relative([objective.losses(each, ids) for each, ids in zip(steps, batches, strict=True)])
    worst: dict[int, float] = {}
    for sample, error in zip(torch.cat(batches).tolist(), errors.tolist(), strict=True):
        worst[sample] = max(error, worst.get(sample, 0.0))
    hardest = sorted(worst, key=worst.__getitem__, reverse=True)[:SHOWN]
    pictures = evidence.pictures
    return [pictures.names[int(pictures.train_ids[sample])] for sample in hardest]


def _relative(losses: list[Losses]) -> Tensor:
    """Every sample's error, times the median one at the same level of noise: (n,)."""
    each = torch.cat([part.each for part in losses]).double().cpu()
    angles = [part.noise for part in losses if part.noise is not None]
    bins = (torch.cat(angles) * NOISE_BINS).long().cpu() if angles else torch.zeros(len(each), dtype=torch.long)
    for k in bins.unique().tolist():
        each[bins == k] /= each[bins == k].median().clamp(min=1e-12)
    return each


def _denoiser(evidence: Evidence) -> Objective:
    model, pictures = evidence.model, evidence.pictures
    network = UNet(model.recipe.network)
    network.load_state_dict(evidence.weights["network"])
    flip = mirrored(model.recipe, pictures, Silent())
    return DenoiserObjective(
        network.to(model.device).eval(),
        model.process,
        model.recipe.loss.model_copy(update={"flip": flip}),
        evidence.latents,
        evidence.conditions.to(model.device).batch,
        pictures.train_ids,
        pictures.held_out_ids,
        model.recipe.seed,
        model.device,
    )


def _vae(evidence: Evidence) -> Objective:
    model, pictures = evidence.model, evidence.pictures
    return VAEObjective(
        model.codec.vae,
        model.recipe.vae.loss.model_copy(update={"perceptual_weight": 0.0, "adversarial_weight": 0.0}),
        lambda ids: to_float(pictures.pixels[ids]),
        pictures.train_ids,
        pictures.held_out_ids,
        model.recipe.seed,
        model.device,
    )
