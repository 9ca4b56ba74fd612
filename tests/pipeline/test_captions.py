"""Captions in shards: the numbers of the encoder, each caption encoded once, over runs and kills."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from calotype import text as texts
from calotype.core.progress import Silent
from calotype.core.types import TextEmbedding
from calotype.pipeline import Run, captions
from calotype.pipeline.captions import encode_captions
from calotype.recipes import Recipe
from calotype.text.batching import CutWarning
from tests.pipeline.stock_models import Letters

WORDS = ["a", "a blue cat", "a dog", "an owl on a very long branch", "red", "two cats", "we"]


class Counting(Letters):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, captions: list[str]) -> TextEmbedding:
        self.seen += captions
        return super().encode(captions)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(captions, "SHARD", 3)
    monkeypatch.setattr(texts, "encoder_fingerprint", lambda name: name)
    monkeypatch.setattr(texts, "load_text_encoder", lambda name: counting)
    return counting


def recipe(*, tokens: bool = True, encoder: str = "letters") -> Recipe:
    values = {"name": "tiny", "size": 32, "network": {"text_tokens": tokens}, "text_encoder": encoder}
    return Recipe.parse(values, "the test")


def assert_encoded(text: TextEmbedding, words: list[str]) -> None:
    expected = Letters().encode(words)
    assert torch.equal(text.pooled, expected.pooled)
    assert torch.equal(text.tokens, expected.tokens)
    assert torch.equal(text.mask, expected.mask)


def test_captions_are_what_the_encoder_makes_of_them_and_encoded_once(tmp_path: Path, encoder: Counting) -> None:
    run = Run(tmp_path / "run")
    text, known = encode_captions(run, recipe(), WORDS, Silent())
    assert_encoded(text, WORDS)
    assert known == {"id": "letters", "sha256": "none", "dim": 12, "token_dim": 20}
    assert encoder.seen == WORDS
    assert_encoded(encode_captions(run, recipe(), WORDS, Silent())[0], WORDS)
    fewer = ["two cats", "a dog"]
    assert_encoded(encode_captions(run, recipe(), fewer, Silent())[0], fewer)
    assert encoder.seen == WORDS
    more = ["a fox", *WORDS, "zebras"]
    assert_encoded(encode_captions(run, recipe(), more, Silent())[0], more)
    assert encoder.seen == [*WORDS, "a fox", "zebras"]
    pooled, _ = encode_captions(run, recipe(tokens=False), WORDS, Silent())
    assert pooled.tokens.shape == (7, 0, 20)
    assert torch.equal(pooled.pooled, Letters().encode(WORDS).pooled)
    assert len(list(run.captions.iterdir())) == 1, "those with token states are gone"


def test_a_damaged_shard_is_encoded_again_and_other_runs_are_asked_first(tmp_path: Path, encoder: Counting) -> None:
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    encode_captions(first, recipe(), WORDS, Silent())
    assert_encoded(encode_captions(second, recipe(), WORDS, Silent())[0], WORDS)
    assert encoder.seen == WORDS
    names = {path.name for path in first.captions.rglob("*.safetensors")}
    assert len(names) == 3
    (damaged, *_) = sorted(first.captions.rglob("*.safetensors"))
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1])
    assert_encoded(encode_captions(first, recipe(), WORDS, Silent(), beside=())[0], WORDS)
    assert {path.name for path in first.captions.rglob("*.safetensors")} == names
    assert damaged.read_bytes() == content


def test_a_trained_run_whose_only_shard_is_damaged_or_of_an_older_format_goes_on(
    tmp_path: Path, encoder: Counting
) -> None:
    run = Run(tmp_path / "run")
    encode_captions(run, recipe(), WORDS[:2], Silent())
    (run.denoiser / "step-00000001").mkdir(parents=True)
    (shard,) = run.captions.rglob("*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert_encoded(encode_captions(run, recipe(), WORDS[:2], Silent())[0], WORDS[:2])
    assert shard.read_bytes() == content
    shard.parent.rename(tmp_path / "elsewhere")
    (run.captions / "text.safetensors").write_bytes(b"of another time")
    assert_encoded(encode_captions(run, recipe(), WORDS[:2], Silent())[0], WORDS[:2])
    assert [path.name for path in run.captions.iterdir()] == [shard.parent.name]


def test_captions_that_are_too_long_are_told_of(
    tmp_path: Path, encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Counting.encode

    def cutting(self: Counting, captions: list[str]) -> TextEmbedding:
        if cut := sum(len(caption) > 8 for caption in captions):
            warnings.warn(CutWarning(cut, len(captions), 8), stacklevel=2)
        return encode(self, captions)

    monkeypatch.setattr(Counting, "encode", cutting)
    with pytest.warns(CutWarning, match="^2 of 7 captions"):
        encode_captions(Run(tmp_path / "run"), recipe(), WORDS, Silent())
