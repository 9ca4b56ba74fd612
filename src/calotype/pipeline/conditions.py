"""What each training picture is asked to be: captions encoded once, class numbers, both, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.core.types import TextEmbedding
from calotype.images.dataset import PictureSet
from calotype.images.openmoji import SHOWCASE
from calotype.network.conditioning import Condition
from calotype.pipeline.captions import encode_captions
from calotype.pipeline.run import Run
from calotype.recipes import Recipe
from calotype.text import rewordings

EXAMPLES = 32  # prompts of the sample sheets


@dataclass(frozen=True)
class Conditions:
    """One row a picture: `labels` (n,) are classes, `rows` (n,) places of captions in `unique`; -1 is none.

    `wordings` (u, k): places of other words for each of `unique`, its own where there are none.
    """

    null: Tensor
    labels: Tensor | None
    rows: Tensor
    unique: TextEmbedding | None
    classes: list[str]
    facts: dict[str, Any]
    wordings: Tensor | None = None

    def fill(self, recipe: Recipe) -> Recipe:
        """The recipe with the network's inputs as the data has them."""
        network = recipe.network.for_data(
            in_channels=recipe.vae.network.latent_channels,
            num_classes=len(self.classes),
            text_dim=0 if self.unique is None else self.unique.pooled.shape[1],
            token_dim=0 if self.unique is None else self.unique.tokens.shape[2],
            latent_size=recipe.size // recipe.vae.network.downsampling,
        )
        return recipe.model_copy(update={"network": network})

    def batch(self, ids: Tensor, wording: Tensor | None = None) -> Condition:
        """The condition of pictures `ids` (b,); a `wording` (b,) in [0, 1) chooses among other words, 1 is its own."""
        labels = None if self.labels is None else self.labels[ids]
        if self.unique is None:
            return Condition(self.null[ids], labels)
        rows = self.rows[ids]
        if wording is not None and self.wordings is not None:
            known = self.wordings.shape[1]
            place = (wording * known).long()
            other = self.wordings[rows.clamp(min=0), place.clamp(max=known - 1)]
            rows = torch.where((place < known) & (rows >= 0), other, rows)
        return Condition(self.null[ids], labels, self.unique[rows.clamp(min=0)], texted=rows >= 0)

    def to(self, device: torch.device) -> Conditions:
        moved = None if self.unique is None else self.unique.to(device)
        labels = None if self.labels is None else self.labels.to(device)
        wordings = None if self.wordings is None else self.wordings.to(device)
        return Conditions(self.null.to(device), labels, self.rows.to(device), moved, self.classes, self.facts, wordings)

    def training_text(self, pictures: PictureSet) -> Tensor:
        """Pooled vectors (k, d) of the distinct captions of the training pictures, in all their wordings."""
        assert self.unique is not None
        rows = self.rows[pictures.train_ids]
        rows = rows[rows >= 0]
        worded = rows if self.wordings is None else torch.cat([rows, self.wordings[rows].flatten()])
        return self.unique.pooled[worded.unique()]


def prepare_conditions(run: Run, recipe: Recipe, pictures: PictureSet, reporter: Reporter) -> Conditions:
    """Decide by data and recipe what the model is conditioned on; encode the captions once into the run.

    A picture without a caption has its class alone, one without a class its caption, one without either is null.
    """
    texts, classes = _asked(recipe.condition, pictures)
    rows, numbers = torch.full((len(pictures),), -1), torch.full((len(pictures),), -1)
    facts, unique, wordings = _data_facts(pictures, texts), None, None
    if texts:
        others = worded((caption for caption in pictures.captions if caption is not None), recipe)
        captions = all_words(others)
        unique, facts["text_encoder"] = encode_captions(run, recipe, captions, reporter)
        number = {caption: i for i, caption in enumerate(captions)}
        rows = torch.tensor([-1 if caption is None else number[caption] for caption in pictures.captions])
        wordings = _table(captions, others, number)
    if classes:
        number = {name: i for i, name in enumerate(pictures.classes)}
        numbers = torch.tensor([-1 if label is None else number[label] for label in pictures.labels])
        facts["classes"] = pictures.classes
    null = (rows < 0) & (numbers < 0)
    return Conditions(null, numbers if classes else None, rows, unique, list(facts["classes"]), facts, wordings)


def worded(captions: Iterable[str], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The distinct captions, and the other words in which this recipe has each of them learnt."""
    return {caption: rewordings(caption) if recipe.loss.rewording else () for caption in captions}


def all_words(others: dict[str, tuple[str, ...]]) -> list[str]:
    """What there is to encode: each caption and its other words, each once and in order."""
    return sorted({*others}.union(*others.values()))


def _table(captions: list[str], others: dict[str, tuple[str, ...]], number: dict[str, int]) -> Tensor | None:
    """The places (u, k) of other words for each caption, over again where it has fewer than k; None without any."""
    most = max(map(len, others.values()), default=0)
    if most == 0:
        return None
    known = [others.get(caption) or (caption,) for caption in captions]
    return torch.tensor([[number[forms[k % len(forms)]] for k in range(most)] for forms in known])


def _asked(kind: str, pictures: PictureSet) -> tuple[bool, bool]:
    """Whether captions and whether classes are used; "auto" is whatever there is to learn from."""
    if kind == "auto":
        return pictures.has_captions, len(pictures.classes) > 1
    texts, classes = "text" in kind, "label" in kind
    if texts and not pictures.has_captions:
        raise UserError(f"condition = {kind}, but the pictures have no captions", "add metadata.jsonl or .txt files")
    if classes and not pictures.has_labels:
        raise UserError(f"condition = {kind}, but the pictures have no classes", "sort them into one folder a class")
    return texts, classes


def _data_facts(pictures: PictureSet, captioned: bool) -> dict[str, Any]:
    """What the bundle says about the data."""
    train = [pictures.captions[i] for i in pictures.train_ids.tolist()]
    held_out = [pictures.captions[i] for i in pictures.held_out_ids.tolist()]
    data = {
        "source": Path(pictures.source).name,
        "pictures": len(pictures),
        "held_out": len(pictures.held_out_ids),
        "refused": pictures.refused,
        "licence": pictures.licence,
        "attribution": pictures.attribution,
    }
    return {
        "data": data,
        "captioned": captioned,
        "classes": [],
        "examples": _examples(train) if captioned else [],
        "held_out_examples": _examples(held_out)[:16] if captioned else [],
    }


def _examples(captions: list[str | None]) -> list[str]:
    """Prompts that show the model: the showcase where the data has it, else the commonest, else an even choice."""
    counts = Counter(caption for caption in captions if caption)
    if all(prompt in counts for prompt in SHOWCASE):
        return list(SHOWCASE)
    if counts and counts.most_common(1)[0][1] > 1:
        return [caption for caption, _ in counts.most_common(EXAMPLES)]
    distinct = list(counts)
    return distinct[:: max(1, -(-len(distinct) // EXAMPLES))]
