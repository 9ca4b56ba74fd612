"""The parts of a run, each done once or twice on a few pictures with the real settings, and what that took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.images.dataset import PictureSet, prepare
from calotype.images.mirroring import mirror_matters
from calotype.images.pixels import to_float
from calotype.images.source import Picture, Source
from calotype.inspection.costs import StageCost, Work, measure_stage, tried
from calotype.latents import Codec, FirstStage, LatentSet, build_vae, encode_pictures, load_pretrained_vae
from calotype.latents.health import examine
from calotype.network.unet import UNet, count_parameters
from calotype.pipeline import previews
from calotype.pipeline.bundle import assemble
from calotype.pipeline.captions import encode_captions
from calotype.pipeline.conditions import Conditions, prepare_conditions
from calotype.pipeline.run import Run
from calotype.recipes import Recipe
from calotype.sampling import get_sampler
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.vae_objective import VAEObjective

SAMPLE = 192  # pictures that are looked at
FEW = 16  # of them for the first, smaller trial of every kind
LISTED = 200_000  # pictures whose captions and classes are counted; of more every so manieth
DECODING = 5.0  # seconds that decoding the sample may take
FEW_PASSES, MORE_PASSES = 2, 6  # sampling steps that are tried


@dataclass
class Listed:
    """What the data says of its pictures before any is read."""

    source: Source
    total: int = field(init=False)
    some: Sequence[Picture] = field(init=False)

    def __post_init__(self) -> None:
        self.total = len(self.source.pictures)
        self.some = self.source.pictures[:: max(1, -(-self.total // LISTED))]

    @cached_property
    def captions(self) -> int:
        """How many distinct captions there are, nearly."""
        distinct = len({picture.caption for picture in self.some if picture.caption is not None})
        return distinct if len(self.some) == self.total else round(distinct * self.total / len(self.some))

    @cached_property
    def classes(self) -> list[str]:
        return sorted({picture.label for picture in self.some if picture.label is not None})

    @property
    def mirrors(self) -> bool:
        """Whether pictures are learned mirrored too, unless the recipe says."""
        captions = [picture.caption for picture in self.some]
        return not mirror_matters(captions, self.classes)

    def sample(self) -> list[Picture]:
        """Pictures from all over the set; captions and classes are among them where there are any."""
        chosen = list(self.some[:: max(1, -(-len(self.some) // SAMPLE))])
        for wanted in ("caption", "label"):
            values = {getattr(picture, wanted) for picture in chosen} - {None}
            least = 1 if wanted == "caption" else 2
            for picture in self.some if len(values) < least else ():
                if getattr(picture, wanted) not in values | {None} and len(values) < least:
                    values.add(getattr(picture, wanted))
                    chosen.append(picture)
        return chosen
