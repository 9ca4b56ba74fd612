"""What one call asks a model for: a row a picture, each with its words and its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from calotype.core.errors import UserError, nearest
from calotype.core.types import Denoiser
from calotype.network.conditioning import Condition
from calotype.recipes import SamplingSection


class Words(NamedTuple):
    """What a picture was asked to be."""

    prompt: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Order:
    """A request in full: one row a picture."""

    condition: Condition
    negative: Condition | None
    seeds: Tensor
    words: list[Words]
    sampling: SamplingSection
    weak: Denoiser | None = None

    def rows(self, chosen: Tensor) -> Order:
        """Some of its pictures."""
        negative = None if self.negative is None else self.negative[chosen]
        words = [self.words[i] for i in chosen.tolist()]
        return replace(self, condition=self.condition[chosen], negative=negative, seeds=self.seeds[chosen], words=words)


def words_asked(
    prompts: str | Sequence[str] | None, labels: str | Sequence[str] | None, captioned: bool, classes: Sequence[str]
) -> list[Words]:
    """Prompts, labels or pairs of them, for a model that is `captioned` and knows `classes`; else UserError.

    One label goes with all prompts, one prompt with all labels.
    """
    prompts, labels = _listed(prompts), _listed(labels)
    if prompts and not captioned:
        how = f"choose --label from {', '.join(classes)}" if classes else "leave the prompt out"
        raise UserError("this model takes no prompt: it was trained without captions", how)
    if labels and not classes:
        raise UserError("this model knows no classes", "leave the label out")
    for label in labels:
        if label not in classes:
            raise UserError(f"unknown class '{label}'", nearest(label, classes))
    if not prompts or not labels:
        return [Words(prompt) for prompt in prompts] or [Words(None, label) for label in labels] or [Words()]
    rows = max(len(prompts), len(labels))
    if {len(prompts), len(labels)} - {1, rows}:
        raise UserError(
            f"{len(prompts)} prompts and {len(labels)} labels were given", "give as many of each, or one of either"
        )
    return [Words(prompts[i % len(prompts)], labels[i % len(labels)]) for i in range(rows)]


def _listed(words: str | Sequence[str] | None) -> list[str]:
    return [words] if isinstance(words, str) else list(words or [])
