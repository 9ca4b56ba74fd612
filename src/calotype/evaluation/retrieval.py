"""Does a sample look like what it was asked for? Own-concept retrieval for captions, agreement for classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from calotype.evaluation.estimates import Estimate, share_estimate
from calotype.evaluation.similarity import centred_cosine


@dataclass(frozen=True)
class Retrieval:
    """Shares of samples whose own picture (or caption) comes first, or among the first five; intervals over prompts.

    `chance1` and `chance5` are the shares of pictures that have nothing to do with their prompts. `ranks` (n,): how
    many of the gallery come before each sample's own.
    """

    top1: Estimate
    top5: Estimate
    num_prompts: int
    num_samples: int
    gallery_size: int
    chance1: float
    chance5: float
    ranks: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Agreement:
    """Share of samples that a vote of real neighbours puts into the class asked for; `by_class` in the order of ids.

    A class that nobody asked for has count 0 and the interval [0, 1]. `hits` (n,): which samples are right, 1 or 0.
    """

    right: Estimate
    by_class: list[Estimate]
    hits: Tensor = field(repr=False, compare=False)


def own_concept(
    sample_features: Tensor, own: Tensor, gallery_features: Tensor, *, captions: Tensor | None = None
) -> Retrieval:
    """Rank the gallery by likeness to every sample; is the sample's own picture near the top?

    rank_i = #{j != own_i : s_ij >= s_i,own_i} with s the cosine of features centred on the gallery's mean (eq. 69); a
    tie counts against the sample. Samples of one prompt (equal `own`) are not independent: a prompt counts once.
    sample_features (n, d), own (n,) int64 indices into gallery_features (g, d). With `captions` (g,), an id for the
    caption of every gallery picture, captions are ranked, each by the likest of its pictures.
    """
    if len(own) != len(sample_features) or len(own) == 0:
        raise ValueError(f"one own index per sample is needed: {len(own)} for {len(sample_features)} samples")
    if not 0 <= int(own.min()) <= int(own.max()) < len(gallery_features):
        raise ValueError(f"own indices must lie in the gallery of {len(gallery_features)}")
    likeness = centred_cosine(sample_features, gallery_features, gallery_features.float().mean(dim=0))
    if captions is not None:
        likeness, own = _by_caption(likeness, own, captions)
    at_least = (likeness >= likeness.gather(1, own[:, None])).scatter(1, own[:, None], False)
    ranks = at_least.sum(dim=1)
    prompts, prompt_of = own.unique(return_inverse=True)
    size = likeness.shape[1]
    return Retrieval(
        top1=share_estimate(_per_prompt(ranks < 1, prompt_of)),
        top5=share_estimate(_per_prompt(ranks < 5, prompt_of)),
        num_prompts=len(prompts),
        num_samples=len(own),
        gallery_size=size,
        chance1=1 / size,
        chance5=min(5 / size, 1.0),
        ranks=ranks,
    )


def class_agreement(
    sample_features: Tensor,
    asked: Tensor,
    features: Tensor,
    classes: Tensor,
    *,
    neighbours: int = 5,
    own: Tensor | None = None,
) -> Agreement:
    """Vote of the nearest real pictures (centred cosine) on the class of every sample; a tie goes to the likest votes.

    sample_features (n, d), asked (n,) class ids, features (k, d) of real pictures with their classes (k,). `own` (n,)
    names a real picture that has no vote on sample i: itself, when real pictures or reconstructions are scored.
    """
    if not len(asked) == len(sample_features) > 0 or len(classes) != len(features):
        raise ValueError("every sample needs the class asked for, and every real picture its class")
    likeness = centred_cosine(sample_features, features, features.float().mean(dim=0))
    if own is not None:
        likeness = likeness.scatter(1, own[:, None], -torch.inf)
    best, voters = likeness.topk(min(neighbours, len(features) - (own is not None)), dim=1)
    total = int(torch.maximum(classes.max(), asked.max())) + 1
    votes = torch.zeros(len(asked), total, dtype=torch.float64)
    votes.scatter_add_(1, classes[voters], 1 + best.double() / (4 * neighbours))  # likeness only breaks ties
    right = (votes.argmax(dim=1) == asked).double()
    return Agreement(share_estimate(right), [_of_class(right[asked == c]) for c in range(total)], right)


def _of_class(right: Tensor) -> Estimate:
    return share_estimate(right) if len(right) else Estimate(0.0, 0.0, 1.0, 0)


def _by_caption(likeness: Tensor, own: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Likeness (n, g) to pictures -> (n, captions) to each caption's likest picture; own picture -> own caption."""
    distinct, caption_of = captions.unique(return_inverse=True)
    best = likeness.new_full((len(likeness), len(distinct)), -2.0)
    best.scatter_reduce_(1, caption_of.expand(len(likeness), -1), likeness, reduce="amax")
    return best, caption_of[own]


def _per_prompt(hits: Tensor, prompt_of: Tensor) -> Tensor:
    """Mean of the hits (n,) bool of every prompt: (prompts,) float64."""
    totals = torch.zeros(int(prompt_of.max()) + 1, dtype=torch.float64)
    return totals.index_add(0, prompt_of, hits.double()) / torch.bincount(prompt_of)
