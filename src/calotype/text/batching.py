"""Many captions in batches of like length, and the one warning about those that are cut."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from calotype.core.types import TextEmbedding, TextEncoder

BATCH_SIZE = 64
AT_ONCE = 4096  # captions whose token states are held before they are dropped: 0.4 GB of MiniLM's


class CutWarning(UserWarning):
    """`cut` of `total` captions were longer than `limit` tokens."""

    def __init__(self, cut: int, total: int, limit: int) -> None:
        self.cut, self.total, self.limit = cut, total, limit
        super().__init__(f"{cut} of {total} captions have more than {limit} tokens; their ends are not read")


def by_length(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows in batches; captions of like length share one, so that little of the work is padding."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]


def encode_all(
    encoder: TextEncoder, captions: list[str], *, tokens: bool, progress: Callable[[int, int], None] | None = None
) -> TextEmbedding:
    """Any number of captions -> pooled (n, d), with their token states (n, longest, e) or with none (n, 0, e).

    All of it float32: kept token states take 4 n longest e bytes. However many parts it takes, captions that are cut
    are told of in one warning.
    """
    import torch

    parts, done = [], 0
    for part in encode_parts(encoder, captions, len(captions) if tokens else AT_ONCE, tokens=tokens):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done, len(captions))
    if len(parts) == 1:
        return parts[0]
    fields = ((part.pooled, part.tokens, part.mask) for part in parts)
    return TextEmbedding(*(torch.cat(field) for field in zip(*fields, strict=True)))


def encode_parts(encoder: TextEncoder, captions: list[str], size: int, *, tokens: bool) -> Iterator[TextEmbedding]:
    """The captions `size` at a time, with their token states or with none; one warning at the end for all cut ones."""
    seen: list[warnings.WarningMessage] = []
    for start in range(0, max(len(captions), 1), max(size, 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            text = encoder.encode(captions[start : start + size])
        seen += caught
        if not tokens:  # clones: a view would keep the whole alive
            text = TextEmbedding(text.pooled, text.tokens[:, :0].clone(), text.mask[:, :0].clone())
        yield text
    cuts = [warning.message for warning in seen if isinstance(warning.message, CutWarning)]
    if cuts:
        warnings.warn(CutWarning(sum(cut.cut for cut in cuts), len(captions), cuts[0].limit), stacklevel=2)
    for warning in seen:
        if not isinstance(warning.message, CutWarning):
            warnings.warn(warning.message, warning.category, stacklevel=2)
