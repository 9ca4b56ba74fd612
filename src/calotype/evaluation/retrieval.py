"""Does a sample look like the picture whose caption it was asked for? Retrieval of the own concept from a gallery."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.evaluation.similarity import centred_cosine, share_interval


@dataclass(frozen=True)
class Retrieval:
    """Shares of samples whose own picture is the first, or among the first five, with 95 % intervals over prompts."""

    top1: float
    top5: float
    interval1: tuple[float, float]
    interval5: tuple[float, float]
    num_prompts: int
    num_samples: int
    gallery_size: int

    @property
    def chance5(self) -> float:
        """The top-5 share of a picture that has nothing to do with its prompt."""
        return min(5 / self.gallery_size, 1.0)


def own_concept(sample_features: Tensor, own: Tensor, gallery_features: Tensor) -> Retrieval:
    """Rank the gallery by likeness to every sample; is the sample's own picture near the top?

    rank_i = #{j != own_i : s_ij >= s_i,own_i} with s the cosine of features centred on the gallery's mean; a tie counts
    against the sample. Samples of one prompt (equal `own`) are not independent: the intervals resample prompts.
    sample_features (n, d), own (n,) int64 indices into gallery_features (g, d).
    """
    if len(own) != len(sample_features) or len(own) == 0:
        raise ValueError(f"one own index per sample is needed: {len(own)} for {len(sample_features)} samples")
    if not 0 <= int(own.min()) <= int(own.max()) < len(gallery_features):
        raise ValueError(f"own indices must lie in the gallery of {len(gallery_features)}")
    likeness = centred_cosine(sample_features, gallery_features, gallery_features.float().mean(dim=0))
    own_likeness = likeness.gather(1, own[:, None])
    at_least = (likeness >= own_likeness).scatter(1, own[:, None], False)
    ranks = at_least.sum(dim=1)
    prompts, prompt_of = own.unique(return_inverse=True)
    first, five = _per_prompt(ranks < 1, prompt_of), _per_prompt(ranks < 5, prompt_of)
    return Retrieval(
        top1=float(first.mean()),
        top5=float(five.mean()),
        interval1=share_interval(first),
        interval5=share_interval(five),
        num_prompts=len(prompts),
        num_samples=len(own),
        gallery_size=len(gallery_features),
    )


def _per_prompt(hits: Tensor, prompt_of: Tensor) -> Tensor:
    """Mean of the hits (n,) bool of every prompt: (prompts,) float64."""
    totals = torch.zeros(int(prompt_of.max()) + 1, dtype=torch.float64)
    return totals.index_add(0, prompt_of, hits.double()) / torch.bincount(prompt_of)
