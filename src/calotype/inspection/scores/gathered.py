"""Everything that an evaluation compares, and its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.core.progress import Reporter
from calotype.features import FeatureExtractor, cached_features
from calotype.images.pixels import to_float
from calotype.inspection.scores.drawing import Settings, reconstruct
from calotype.inspection.scores.roles import Roles, with_classes
from calotype.inspection.scores.subject import Subject


@dataclass(frozen=True)
class Rows:
    """One vector a row of the picture set, for some of its rows."""

    vectors: Tensor
    place: Mapping[int, int]

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.vectors[[self.place[row] for row in rows.tolist()]]


@dataclass(frozen=True)
class Gathered:
    """Everything that is compared: pictures (uint8) and their features.

    `made` and `unseen` hold `num_images` samples a row of `roles.asked` and `roles.unseen`. `rebuilt` are pictures as
    the autoencoder gives them back, of all rows that play a part: what a perfect denoiser could draw.
    """

    roles: Roles
    num_images: int
    made: Tensor
    unseen: Tensor | None
    rebuilt: Rows
    made_features: Tensor
    unseen_features: Tensor | None
    real_features: Rows
    rebuilt_features: Rows
    thorough: bool


def gather(
    subject: Subject,
    roles: Roles,
    made: Tensor,
    unseen: Tensor | None,
    settings: Settings,
    network: FeatureExtractor,
    reporter: Reporter,
) -> Gathered:
    """Take the features of samples uint8 `made` and `unseen`, of real pictures, and of reconstructions.

    Without `settings.thorough`, features are taken of those reconstructions alone that are asked for, or vote on the
    class of a sample.
    """
    pictures = subject.pictures
    voters = roles.reference if with_classes(roles.kind, pictures) else roles.reference[:0]
    redrawn = torch.cat([roles.asked, roles.unseen, roles.training, roles.held_out, voters]).unique()
    rebuilt = by_row(redrawn, reconstruct(subject.model, pictures.pixels[redrawn]))
    compared = torch.cat([roles.reference, roles.asked, roles.unseen, roles.held_out]).unique()
    looked_at = redrawn if settings.thorough else torch.cat([roles.asked, roles.unseen, voters]).unique()

    def seen(pixels: Tensor) -> Tensor:
        if subject.cache is not None:
            return cached_features(network, pixels, subject.cache, reporter=reporter)
        return network(to_float(pixels))

    return Gathered(
        roles,
        settings.num_images,
        made=made,
        unseen=unseen,
        rebuilt=rebuilt,
        made_features=network(to_float(made)),
        unseen_features=None if unseen is None else network(to_float(unseen)),
        real_features=by_row(compared, seen(pictures.pixels[compared])),
        rebuilt_features=by_row(looked_at, seen(rebuilt[looked_at])),
        thorough=settings.thorough,
    )


def by_row(rows: Tensor, vectors: Tensor) -> Rows:
    """Vectors (n, ...) of these rows (n,), to be had by row."""
    return Rows(vectors, {row: k for k, row in enumerate(rows.tolist())})
