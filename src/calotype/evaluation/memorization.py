"""Are samples copies of training pictures? Judged beside held-out pictures, which cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.evaluation.similarity import centred_cosine, share_interval

# A real picture that was never trained on counts as a near-copy this often.
BASELINE_SHARE = 0.05


@dataclass(frozen=True)
class NearCopies:
    """`share` of samples nearer to a training picture than `threshold`, which 5 % of held-out pictures are as well.

    `nearer` is the chance that a sample lies nearer to the training set than a held-out picture does: one half for
    samples that are as new as real unseen pictures, one for copies. `distances` (n,) and `neighbours` (n,) name every
    sample's nearest training picture.
    """

    share: float
    interval: tuple[float, float]
    threshold: float
    nearer: float
    distances: Tensor
    neighbours: Tensor


def near_copies(samples: Tensor, training: Tensor, held_out: Tensor, *, baseline: float = BASELINE_SHARE) -> NearCopies:
    """Compare the samples' distances to their nearest training pictures with those of held-out pictures.

    d(x) = 1 - max_j cos(x - m, t_j - m), m the training mean. threshold = the `baseline` quantile of d over held_out;
    share = the part of samples with d < threshold; nearer = P(d(sample) < d(held-out)) + P(equal) / 2, the statistic of
    Meehan, Chaudhuri & Dasgupta 2020. Vectors (n, d), (k, d), (h, d) are all features or all flattened pixels. Samples
    of training prompts are near their pictures when the model does well: read the share beside the retrieval score.
    The interval resamples samples.
    """
    if min(len(samples), len(training), len(held_out)) == 0:
        raise ValueError("samples, training and held-out pictures are needed, at least one of each")
    distances, neighbours = _nearest(samples, training)
    reference, _ = _nearest(held_out, training)
    threshold = torch.quantile(reference, baseline)
    copies = distances < threshold
    below = (distances[:, None] < reference).double() + (distances[:, None] == reference).double() / 2
    return NearCopies(
        share=float(copies.double().mean()),
        interval=share_interval(copies.double()),
        threshold=float(threshold),
        nearer=float(below.mean()),
        distances=distances,
        neighbours=neighbours,
    )


def _nearest(vectors: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and index of, the nearest training vector: (n, d) -> (n,), (n,)."""
    likeness, neighbours = centred_cosine(vectors, training, training.float().mean(dim=0)).max(dim=1)
    return 1 - likeness, neighbours
