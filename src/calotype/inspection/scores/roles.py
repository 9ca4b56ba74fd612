"""Which pictures play which part in an evaluation: a pure function of the set and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.random import uniform
from calotype.images.dataset import PictureSet

Asked = Literal["captions", "classes", "nothing"]

MOST_REFERENCE = 2048  # pictures that distances are taken to
MOST_COMPARED = 10_000  # training pictures that samples are looked for among
GALLERY = 512
LEAST_SPLIT = 64  # training pictures below which all of them play both parts


@dataclass(frozen=True)
class Roles:
    """Rows of a picture set (int64 each).

    `reference`: real training pictures that every distance is taken to. `asked`: other training pictures, whose
    captions or classes the model is asked for and whose reconstructions are the ceiling, so that nothing is compared
    with itself. `unseen`: held-out pictures asked for in the same way. `training`: what samples may be copies of, those
    `asked` for first. `held_out`: the floor. `kind`: what the model is asked with.
    """

    kind: Asked
    reference: Tensor
    asked: Tensor
    unseen: Tensor
    training: Tensor
    held_out: Tensor

    @property
    def rows(self) -> Tensor:
        """Every row that plays a part, ascending."""
        return torch.cat([self.reference, self.asked, self.unseen, self.training, self.held_out]).unique()


def assign(
    pictures: PictureSet,
    kind: Asked,
    prompts: int,
    seed: int,
    *,
    most_reference: int = MOST_REFERENCE,
    most_compared: int = MOST_COMPARED,
) -> Roles:
    """Deal out the parts: `prompts` pictures to be asked for, and as many held-out ones where there are so many.

    Raises UserError for a set of which nothing can be asked.
    """
    training = _shuffled(pictures.train_ids, seed)
    held_out = _shuffled(pictures.held_out_ids, seed)
    if len(training) < 2:
        raise UserError(f"{pictures.source} has {len(training)} training pictures", "scores need at least two")
    half = len(training) // 2 if len(training) >= LEAST_SPLIT else 0
    asked = [row for row in training[half:].tolist() if _has_words(pictures, row, kind)]
    if not asked:
        raise UserError(f"no picture of {pictures.source} has a {_WORD[kind]} to ask for", "give the pictures it has")
    unseen = [row for row in held_out.tolist() if _has_words(pictures, row, kind)] if kind == "captions" else []
    chosen = torch.tensor(asked[:prompts])
    return Roles(
        kind,
        reference=(training[:half] if half else training)[:most_reference],
        asked=chosen,
        unseen=torch.tensor(unseen[:prompts], dtype=torch.long),
        training=torch.cat([chosen, training[~torch.isin(training, chosen)]])[:most_compared],
        held_out=held_out[:MOST_REFERENCE],
    )


_WORD = {"captions": "caption", "classes": "class", "nothing": "picture"}


def with_classes(kind: Asked, pictures: PictureSet) -> bool:
    """Whether what is asked for has a class, of which a sample may be or not."""
    return kind == "classes" or (kind == "captions" and pictures.has_labels)


def gallery(asked: Tensor, others: Tensor, size: int = GALLERY) -> Tensor:
    """The pictures `asked` for, first, filled up with `others` to `size`."""
    taken = set(asked.tolist())
    rest = [row for row in others.tolist() if row not in taken]
    return torch.tensor((asked.tolist() + rest)[: max(size, len(asked))])


def numbered(words: Sequence[str | None]) -> Tensor:
    """Equal words get equal numbers, (n,) int64; what has none is unlike all others."""
    known: dict[str, int] = {}
    return torch.tensor(
        [-1 - k if word is None else known.setdefault(word, len(known)) for k, word in enumerate(words)]
    )


def _has_words(pictures: PictureSet, row: int, kind: Asked) -> bool:
    return kind == "nothing" or (pictures.captions if kind == "captions" else pictures.labels)[row] is not None


def _shuffled(ids: Tensor, seed: int) -> Tensor:
    """The order of each picture is drawn for it alone, so that one more picture moves no other."""
    return ids[torch.argsort(uniform(seed, "evaluation", 0, ids), stable=True)]
