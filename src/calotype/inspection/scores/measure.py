"""How far samples are from real pictures, and whether they are what was asked for, as parts of the record."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.evaluation import (
    Agreement,
    Retrieval,
    class_agreement,
    estimate_frechet,
    estimate_kernel_distance,
    own_concept,
    support,
)
from calotype.images.dataset import PictureSet
from calotype.inspection.scores.gathered import Gathered, Rows
from calotype.inspection.scores.roles import gallery, numbered, with_classes

NEIGHBOURS = 5
LEAST_DISTANCE = 16  # pictures a side below which a distance says nothing
GROW_WITH_COUNT = ("frechet", "recall", "coverage")  # scores that mean something beside others of one count alone


def distances(gathered: Gathered) -> dict[str, Any]:
    """Samples, reconstructions (the ceiling) and held-out pictures (the floor), each against `roles.reference`.

    Of several pictures of a prompt the first one counts, so that what is compared is independent. Where fewer pictures
    are held out than drawn, the floor has no score that depends on how many there are.
    """
    reference = gathered.real_features[gathered.roles.reference]
    samples = gathered.made_features[:: gathered.num_images]
    sets = {
        "samples": samples,
        "ceiling": gathered.rebuilt_features[gathered.roles.asked],
        "floor": gathered.real_features[gathered.roles.held_out[: len(samples)]],
    }
    found: dict[str, Any] = {
        name: _compared(features, reference) if min(len(features), len(reference)) >= LEAST_DISTANCE else None
        for name, features in sets.items()
    }
    if found["floor"] is not None and len(sets["floor"]) < len(samples):
        found["floor"] |= dict.fromkeys(GROW_WITH_COUNT)
    return found | {"reference": len(reference)}


def _compared(features: Tensor, reference: Tensor) -> dict[str, Any]:
    frechet, lies = estimate_frechet(features, reference), support(features, reference, neighbours=NEIGHBOURS)
    return {
        "kernel": estimate_kernel_distance(features, reference).plain(),
        "frechet": frechet.at_count.plain(),
        "frechet_infinity": frechet.at_infinity.plain(),
        "precision": lies.precision.plain(),
        "recall": lies.recall.plain(),
        "density": lies.density.plain(),
        "coverage": lies.coverage.plain(),
    }


def fidelity(gathered: Gathered, pictures: PictureSet) -> dict[str, Any]:
    """Are captions and classes drawn as asked? Beside what the autoencoder alone would reach."""
    roles = gathered.roles
    found: dict[str, Any] = {"captions": None, "held_out_captions": None, "classes": None}
    if roles.kind == "captions":
        found["captions"] = _retrieved(gathered, pictures, roles.asked, gathered.made_features)
        if gathered.unseen_features is not None:
            found["held_out_captions"] = _retrieved(gathered, pictures, roles.unseen, gathered.unseen_features)
    if with_classes(roles.kind, pictures):
        found["classes"] = _agreed(gathered, pictures)
    return found


def _retrieved(gathered: Gathered, pictures: PictureSet, asked: Tensor, made: Tensor) -> dict[str, Any]:
    rows = gallery(asked, gathered.roles.reference)
    captions = numbered([pictures.captions[row] for row in rows.tolist()])
    own, shown = torch.arange(len(asked)), gathered.real_features[rows]
    recurring = captions if len(captions.unique()) < len(captions) else None
    got = own_concept(made, own.repeat_interleave(gathered.num_images), shown, captions=recurring)
    ceiling = own_concept(gathered.rebuilt_features[asked], own, shown, captions=recurring)
    return _plain(got, ceiling, gathered.num_images)


def _plain(got: Retrieval, ceiling: Retrieval, num_images: int) -> dict[str, Any]:
    return {
        "top1": got.top1.plain(),
        "top5": got.top5.plain(),
        "ceiling1": ceiling.top1.plain(),
        "ceiling5": ceiling.top5.plain(),
        "chance1": got.chance1,
        "chance5": got.chance5,
        "prompts": got.num_prompts,
        "images_per_prompt": num_images,
        "gallery": got.gallery_size,
    }


def _agreed(gathered: Gathered, pictures: PictureSet) -> dict[str, Any] | None:
    """Whether samples lie among pictures of the class asked for, by a vote of five neighbours.

    Those are as the autoencoder gives them back, as for `memory`: beside sharp ones, classes of fine texture would lose
    every blurred sample to the others, right or wrong. `among_real` is the share beside the pictures as they are.
    """
    roles = gathered.roles
    number = {label: k for k, label in enumerate(pictures.classes)}

    def classes(rows: Tensor) -> Tensor:
        return torch.tensor([number.get(str(pictures.labels[row]), -1) for row in rows.tolist()])

    voters, asked, held_out = classes(roles.reference), classes(roles.asked), classes(roles.held_out)
    shown, known, voters = roles.reference[voters >= 0], asked >= 0, voters[voters >= 0]
    if len(number) < 2 or len(voters) <= NEIGHBOURS or not known.any():
        return None

    def agreement(of: tuple[Tensor, Tensor], beside: Rows, own: Tensor | None = None) -> Agreement:
        return class_agreement(*of, beside[shown], voters, neighbours=NEIGHBOURS, own=own)

    # Several pictures of a caption are not independent, several of a class are.
    each, every = (1, gathered.num_images) if roles.kind == "captions" else (gathered.num_images, 1)
    repeated = known.repeat_interleave(each)
    made = gathered.made_features[::every][repeated], asked.repeat_interleave(each)[repeated]
    got = agreement(made, gathered.rebuilt_features)
    rows = roles.asked[known]
    place = {row: k for k, row in enumerate(shown.tolist())}  # where pictures are few they are asked for and vote too
    itself = torch.tensor([place[row] for row in rows.tolist()]) if place.keys() >= set(rows.tolist()) else None
    ceiling = agreement((gathered.rebuilt_features[rows], asked[known]), gathered.rebuilt_features, itself)
    unseen = None
    if (held_out >= 0).any():
        real = gathered.real_features[roles.held_out][held_out >= 0], held_out[held_out >= 0]
        unseen = agreement(real, gathered.real_features).right.plain()
    shares = torch.bincount(asked[known], minlength=len(number)).double() / int(known.sum())
    return {
        "right": got.right.plain(),
        "among_real": agreement(made, gathered.real_features).right.plain(),
        "ceiling": ceiling.right.plain(),
        "real": unseen,
        "chance": float(shares.square().sum()),
        "by_class": {label: one.plain() for label, one in zip(number, got.by_class) if one.count},
    }
