"""Are samples copies of training pictures? Judged beside real pictures that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from calotype.evaluation.estimates import Estimate, share_estimate, share_of_variance
from calotype.evaluation.neighbours import nearest, nearest_few

__all__ = ["Memorization", "Verdict", "judge", "memorization", "nearest"]

Verdict = Literal["memory", "partly", "new", "unknown"]

THRESHOLD = 1 / 3  # a copy lies three times nearer to one training picture than to those that follow
MOST_UNSEEN = 0.75  # of unseen pictures may count as copies: where they are more, the threshold is lower
FOLLOWING = 50  # pictures that follow, at most
ALIKE = (
    0.05  # their least mean distance, where pictures taken at random are 1 apart: a copy of one of many equals is one
)
FEWEST_HELD_OUT, MOST_LEFT_OUT = 32, 512
FEWEST = 8  # samples (or prompts) and unseen pictures that a verdict needs
MOSTLY, SOME, NEARER = 0.5, 0.05, 0.6  # of the verdicts: shares that must be copies, and how much nearer is nearer


@dataclass(frozen=True)
class Memorization:
    """How near samples lie to training pictures, beside unseen real pictures (`baseline`).

    A picture's distance is that to its nearest training picture, divided by the mean of those to the pictures that
    follow. `copies` and `baseline` are the shares of samples and of unseen pictures below `threshold`; `excess` what
    copies there must be among the samples if the others are as new as unseen pictures; `nearer` the chance that a
    sample is nearer than an unseen picture (one half: as new as those); `recalled` the share of samples whose nearest
    training picture is that of their own prompt. `distances` (n,) and `neighbours` (n,) are those of each sample.
    """

    copies: Estimate
    baseline: Estimate
    nearer: Estimate
    recalled: Estimate | None
    excess: Estimate
    threshold: float
    distances: Tensor
    neighbours: Tensor

    @property
    def is_copy(self) -> Tensor:
        """Which samples are nearer than the threshold: (n,) bool."""
        return self.distances < self.threshold

    def plain(self) -> dict[str, Any]:
        """The scores as JSON values."""
        estimates = {name: getattr(self, name) for name in ("copies", "baseline", "excess", "nearer", "recalled")}
        return {
            **{name: None if value is None else value.plain() for name, value in estimates.items()},
            "threshold": self.threshold,
        }


def memorization(samples: Tensor, training: Tensor, held_out: Tensor, *, own: Tensor | None = None) -> Memorization:
    """Compare the samples' distances d_1 / mean(d_2 .. d_k) to the training set with those of unseen pictures.

    A bare distance would call plain pictures copies, and the least distances among held-out pictures are those of twins
    in the training set, which no model's copy attains: the ratio knows both. Likeness is `nearest`'s. All three sets
    are features (n, d) or all are pictures (n, c, h, w), best as the autoencoder gives them back, so that its loss
    hides no copy. `own` (n,) is the training id of each sample's prompt, -1 where it has none; samples of one prompt
    count as one. Held-out pictures fewer than 32 are joined by training pictures, each compared with the others.
    A model that draws what a caption says comes near to that caption's picture, in features above all: judge by pixels.
    """
    if min(len(samples), len(training) - 2) <= 0:
        raise ValueError("samples and at least three training pictures are needed")
    distances, neighbours = _relative(samples, training)
    unseen = _unseen(training, held_out)
    threshold = min(THRESHOLD, float(unseen.quantile(MOST_UNSEEN)))
    groups = torch.arange(len(samples)) if own is None else _groups(own)
    copies = share_estimate(_mean_by(groups, (distances < threshold).double()))
    baseline = share_estimate((unseen < threshold).double())
    recalled = None
    if own is not None and bool((own >= 0).any()):
        asked = own >= 0
        recalled = share_estimate(_mean_by(_groups(own[asked]), (neighbours == own)[asked].double()))
    return Memorization(
        copies=copies,
        baseline=baseline,
        excess=_excess(copies, baseline),
        nearer=_nearer(distances, unseen, groups),
        recalled=recalled,
        threshold=threshold,
        distances=distances,
        neighbours=neighbours,
    )


def _relative(queries: Tensor, training: Tensor, but: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """d_1 / mean(d_2 .. d_k) of each query, k at most a tenth of the training set, and the nearest id."""
    count = 1 + max(2, min(FOLLOWING, len(training) // 10))
    distances, ids = nearest_few(queries, training, count, but=but)
    following = distances[:, 1:].double().mean(dim=1).clamp(min=ALIKE)
    return distances[:, 0].double() / following, ids[:, 0]


def _unseen(training: Tensor, held_out: Tensor) -> Tensor:
    """Relative distances of pictures that are not in the set they are compared with."""
    found = _relative(held_out, training)[0] if len(held_out) else torch.zeros(0, dtype=torch.float64)
    if len(held_out) >= FEWEST_HELD_OUT:
        return found
    rows = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:MOST_LEFT_OUT]
    left_out, _ = _relative(training[rows], training, but=rows)
    copied = left_out < 1e-4  # equal pictures are never on both sides of the split
    return torch.cat([found, left_out if copied.all() else left_out[~copied]])


def _groups(own: Tensor) -> Tensor:
    """Number of the prompt of each sample; one without is alone."""
    alone = -1 - torch.arange(len(own))
    return torch.where(own >= 0, own, alone).unique(return_inverse=True)[1]


def _mean_by(groups: Tensor, values: Tensor) -> Tensor:
    totals = torch.zeros(int(groups.max()) + 1, dtype=torch.float64)
    return totals.index_add(0, groups, values) / torch.bincount(groups)


def _nearer(distances: Tensor, unseen: Tensor, groups: Tensor) -> Estimate:
    """P(d(sample) < d(unseen)) + P(equal) / 2 (Meehan et al. 2020) with the variance of DeLong et al. 1988."""
    wins = (distances[:, None] < unseen).double() + (distances[:, None] == unseen).double() / 2
    by_prompt, by_unseen = _mean_by(groups, wins.mean(dim=1)), wins.mean(dim=0)
    variance = sum(float(part.var()) / len(part) for part in (by_prompt, by_unseen) if len(part) > 1)
    return share_of_variance(float(wins.mean()), variance, min(len(by_prompt), len(by_unseen)))


def _excess(copies: Estimate, baseline: Estimate) -> Estimate:
    """1 - (1 - copies) / (1 - baseline): the share of samples that must be copies, the others being like unseen ones.

    The interval of the ratio of two shares is that of Donner & Zou 2012 (MOVER-R).
    """
    top, low1, high1 = 1 - copies.value, 1 - copies.high, 1 - copies.low
    bottom, low2, high2 = 1 - baseline.value, 1 - baseline.high, 1 - baseline.low
    both = top * bottom
    least = (both - max(both**2 - low1 * high2 * (2 * top - low1) * (2 * bottom - high2), 0) ** 0.5) / (
        high2 * (2 * bottom - high2)
    )
    most = (both + max(both**2 - high1 * low2 * (2 * top - high1) * (2 * bottom - low2), 0) ** 0.5) / (
        low2 * (2 * bottom - low2)
    )
    return Estimate(1 - top / bottom, 1 - most, 1 - least, min(copies.count, baseline.count))


def judge(pixels: Memorization, features: Memorization | None = None) -> tuple[Verdict, str]:
    """Whether samples are copies, and the numbers, in a sentence or two of plain words.

    "memory": at least half must be (by pixels); "partly": some must be, or samples keep nearer than unseen pictures do;
    "unknown": a quarter might be, too few pictures to tell; "new": none of these. Features alone say "partly" at most.
    """
    verdict, found = _verdict(pixels), pixels
    if features is not None and verdict in ("new", "unknown"):
        second = _verdict(features)
        if second in ("memory", "partly"):
            verdict, found = "partly", features
        elif second == "unknown":
            verdict = "unknown"
    return verdict, f"{_OPENING[verdict]} {_facts(found, 'pixels' if found is pixels else 'features of a network')}"


def _verdict(found: Memorization) -> Verdict:
    if min(found.copies.count, found.baseline.count) < FEWEST:
        return "unknown"
    if found.excess.low >= MOSTLY:
        return "memory"
    if found.excess.low >= SOME or found.nearer.low >= NEARER:
        return "partly"
    return "unknown" if found.excess.high > MOSTLY / 2 else "new"


_OPENING: dict[Verdict, str] = {
    "memory": "The model gives back its training pictures.",
    "partly": "Some samples are copies of training pictures, or close to them.",
    "unknown": "There are too few pictures to tell whether samples are copies.",
    "new": "The samples are no copies: they are as new as real pictures that the model never saw.",
}


def _facts(found: Memorization, by: str) -> str:
    copies, unseen = (f"{100 * share.value:.0f} %" for share in (found.copies, found.baseline))
    sentence = (
        f"Compared by {by}, {copies} of samples lie as near to one training picture as copies do; "
        f"of real pictures it never saw, {unseen} do"
    )
    if found.baseline.value > MOSTLY / 2:
        sentence += " (many pictures of this set are alike)"
    if found.recalled is not None:
        recalled = f"{100 * found.recalled.value:.0f} %"
        sentence += f". {recalled} of the samples are nearest to the very picture of their prompt"
    return sentence + "."
