"""Many captions in parts: the same numbers, one warning, no token states that nobody wants."""

from __future__ import annotations

import warnings

import pytest
import torch

from calotype.core.types import TextEmbedding
from calotype.text import batching, encode_all
from calotype.text.batching import CutWarning

CAPTIONS = [f"{'ab' * (i % 5)}{i}" for i in range(23)]


class Letters:
    """A caption's letters as numbers; more than 8 are cut."""

    id, fingerprint, dim, token_dim = "letters", "0", 1, 1

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode(self, captions: list[str]) -> TextEmbedding:
        self.calls.append(len(captions))
        cut = sum(len(caption) > 8 for caption in captions)
        if cut:
            warnings.warn(CutWarning(cut, len(captions), 8), stacklevel=2)
        tokens = torch.zeros(len(captions), max(map(len, captions), default=0), 1)
        for row, caption in enumerate(captions):
            tokens[row, : len(caption), 0] = torch.tensor([float(ord(letter)) for letter in caption])
        return TextEmbedding(tokens.sum(1), tokens, tokens[..., 0] > 0)


def test_parts_give_what_one_call_gives_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "AT_ONCE", 5)
    encoder, steps = Letters(), list[tuple[int, int]]()
    with pytest.warns(CutWarning, match="^4 of 23 captions have more than 8 tokens") as seen:
        pooled = encode_all(encoder, CAPTIONS, tokens=False, progress=lambda done, total: steps.append((done, total)))
    assert len(seen) == 1
    assert encoder.calls == [5, 5, 5, 5, 3]
    assert steps[-1] == (23, 23)
    with pytest.warns(CutWarning):
        whole = encode_all(encoder, CAPTIONS, tokens=True)
    assert torch.equal(pooled.pooled, whole.pooled)
    assert pooled.tokens.shape == (23, 0, 1)
    assert pooled.mask.shape == (23, 0)
    assert whole.tokens.shape == (23, 10, 1)


def test_none_at_all() -> None:
    for tokens in (True, False):
        assert len(encode_all(Letters(), [], tokens=tokens)) == 0
