"""Whether samples are training pictures, as a part of the record."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.evaluation import Memorization, judge, memorization
from calotype.images.dataset import PictureSet
from calotype.inspection.scores.gathered import Gathered
from calotype.inspection.scores.roles import Roles

NEAREST_TOLD = 32


def memory(gathered: Gathered, pictures: PictureSet) -> dict[str, Any]:
    """Are samples training pictures? Both as the autoencoder gives them back, so that what it loses hides no copy."""
    roles = gathered.roles
    unknown = {"verdict": "unknown", "summary": "", "pixels": None, "features": None}
    own = _own(roles, gathered.num_images)
    if min(len(roles.training) - 2, len(gathered.made)) <= 0:
        return {"memorization": unknown, "nearest": []}
    training, held_out = (gathered.rebuilt[rows] for rows in (roles.training, roles.held_out))
    pixels = memorization(gathered.made, training, held_out, own=own)
    features = None
    if gathered.thorough:
        parts = (gathered.rebuilt_features[rows] for rows in (roles.training, roles.held_out))
        features = memorization(gathered.made_features, *parts, own=own)
    verdict, summary = judge(pixels, features)
    told: dict[str, Any] = {"verdict": verdict, "summary": summary, "pixels": pixels.plain()}
    told |= {"features": None if features is None else features.plain()}
    if gathered.unseen is not None:
        unseen = memorization(gathered.unseen[:: gathered.num_images], training, held_out)  # of a caption, one
        told["summary"] += f" Of samples of captions it never saw, {100 * unseen.copies.value:.0f} % do."
        told["held_out_captions"] = unseen.plain()
    return {"memorization": told, "nearest": _nearest_told(pixels, gathered, pictures)}


def _own(roles: Roles, num_images: int) -> Tensor | None:
    """The place among the training pictures of the one that each sample was asked for; -1 where it is not there."""
    if roles.kind != "captions":
        return None
    place = {row: k for k, row in enumerate(roles.training.tolist())}
    return torch.tensor([place.get(row, -1) for row in roles.asked.tolist()]).repeat_interleave(num_images)


def _nearest_told(found: Memorization, gathered: Gathered, pictures: PictureSet) -> list[dict[str, Any]]:
    """The nearest training pictures of the first samples, as records."""
    told = []
    for k in range(min(NEAREST_TOLD, len(gathered.made))):
        asked = int(gathered.roles.asked[k // gathered.num_images])
        row = int(gathered.roles.training[found.neighbours[k]])
        words = {"prompt": pictures.captions[asked], "label": pictures.labels[asked]}
        near = {"name": pictures.names[row], "row": row, "distance": float(found.distances[k])}
        told.append({"place": k, **words, **near, "copy": bool(found.is_copy[k])})
    return told
