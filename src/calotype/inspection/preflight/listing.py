"""What data says of its pictures before any is read, and which of them stand for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from calotype.images.mirroring import mirror_matters
from calotype.images.source import Picture, Source
from calotype.images.split import HELD_OUT_SHARE

SAMPLE = 192  # pictures that stand for all
LISTED = 200_000  # pictures whose captions and classes are counted; of more every so manieth


@dataclass(frozen=True)
class Listing:
    """A source's pictures, by what it says of them."""

    source: Source

    @property
    def total(self) -> int:
        return len(self.source.pictures)

    @cached_property
    def some(self) -> Sequence[Picture]:
        """All of them, or an even choice."""
        return self.source.pictures[:: max(1, -(-self.total // LISTED))]

    @cached_property
    def captions(self) -> int:
        """How many distinct captions there are, nearly."""
        distinct = len({picture.caption for picture in self.some if picture.caption is not None})
        return distinct if len(self.some) == self.total else round(distinct * self.total / len(self.some))

    @cached_property
    def classes(self) -> list[str]:
        return sorted({picture.label for picture in self.some if picture.label is not None})

    @cached_property
    def held_out_share(self) -> float:
        """The share of the pictures that training does not see."""
        told = sum(picture.split == "held-out" for picture in self.some)
        untold = sum(picture.split is None for picture in self.some)
        return (told + HELD_OUT_SHARE * untold) / max(len(self.some), 1)

    @cached_property
    def mirrored(self) -> bool:
        """Whether pictures are learned mirrored too where the recipe does not say."""
        return not mirror_matters([picture.caption for picture in self.some], self.classes)

    def sample(self) -> list[Picture]:
        """Pictures from all over the set in no order, first one with a caption and two of different classes, if any."""
        chosen = list(self.some[:: max(1, -(-len(self.some) // SAMPLE))])
        Random(0).shuffle(chosen)
        first: list[Picture] = []
        for picture in self.some:
            labels = {known.label for known in first}
            new = picture.label is not None and picture.label not in labels and len(labels - {None}) < 2
            if new or (picture.caption is not None and all(known.caption is None for known in first)):
                first.append(picture)
        names = {picture.name for picture in first}
        return first + [picture for picture in chosen if picture.name not in names]
