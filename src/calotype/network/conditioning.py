"""What a picture is asked to be: a class, a text, or nothing. The null condition lives here and only here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calotype.core.types import TextEmbedding
from calotype.nn import sinusoidal_embedding

LEVEL_CHANNELS = 32  # of a tiled map: the noise level


@dataclass(frozen=True)
class Condition:
    """A batch of conditions: `label` (b,) int64 and/or `text`; `null` (b,) bool marks rows that ask for nothing.

    The network replaces a null row by its learned null embedding, which is what classifier-free guidance compares with
    (Ho & Salimans 2022). An unconditional model has all rows null.
    """

    null: Tensor
    label: Tensor | None = None
    text: TextEmbedding | None = None

    def __len__(self) -> int:
        return len(self.null)

    def __getitem__(self, index: Any) -> Condition:
        return Condition(
            self.null[index],
            None if self.label is None else self.label[index],
            None if self.text is None else self.text[index],
        )

    def to(self, device: Any) -> Condition:
        return Condition(
            self.null.to(device),
            None if self.label is None else self.label.to(device),
            None if self.text is None else self.text.to(device),
        )

    def dropped(self, rows: Tensor | None = None) -> Condition:
        """The same batch with these rows (b,) bool (default: all) made null."""
        rows = torch.ones_like(self.null) if rows is None else rows
        return Condition(self.null | rows, self.label, self.text)

    @staticmethod
    def from_pooled(vectors: Tensor) -> Condition:
        """Texts given as pooled vectors (b, d) alone, without tokens."""
        rows, width = vectors.shape
        mask = torch.zeros(rows, 0, dtype=torch.bool, device=vectors.device)
        text = TextEmbedding(vectors, vectors.new_zeros(rows, 0, width), mask)
        return Condition(torch.zeros(rows, dtype=torch.bool, device=vectors.device), text=text)

    @staticmethod
    def nothing(batch_size: int, device: Any = None) -> Condition:
        """An unconditional batch."""
        return Condition(torch.ones(batch_size, dtype=torch.bool, device=device))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Rows of all parts, in order; a part that lacks a field gets zeros there, tokens are padded to one length."""
        labels, texts = [part.label for part in parts], [part.text for part in parts]
        label, text = next((x for x in labels if x is not None), None), next((x for x in texts if x is not None), None)
        if label is not None:
            zeros = [label.new_zeros(len(part)) for part in parts]
            label = torch.cat([zero if given is None else given for given, zero in zip(labels, zeros, strict=True)])
        if text is not None:
            silence = [_no_text(len(part), text) for part in parts]
            text = _cat_text([none if given is None else given for given, none in zip(texts, silence, strict=True)])
        return Condition(torch.cat([part.null for part in parts]), label, text)


def _no_text(rows: int, like: TextEmbedding) -> TextEmbedding:
    """An embedding of nothing, of the width of `like`."""
    width = like.pooled.shape[1]
    tokens = like.tokens.new_zeros(rows, 0, like.tokens.shape[2])
    return TextEmbedding(like.pooled.new_zeros(rows, width), tokens, like.mask.new_zeros(rows, 0))


def _cat_text(parts: Sequence[TextEmbedding]) -> TextEmbedding:
    length = max(part.tokens.shape[1] for part in parts)
    pad = torch.nn.functional.pad
    return TextEmbedding(
        torch.cat([part.pooled for part in parts]),
        torch.cat([pad(part.tokens, (0, 0, 0, length - part.tokens.shape[1])) for part in parts]),
        torch.cat([pad(part.mask, (0, length - part.mask.shape[1])) for part in parts]),
    )


class ConditionEncoder(nn.Module):
    """Condition -> one hidden vector (b, hidden); a null row gets a learned one.

    Text goes in whitened with the statistics of the training captions (`fit_text`), which are buffers here so that
    they travel with the weights.
    """

    def __init__(self, hidden: int, *, num_classes: int = 0, text_dim: int = 0, text_tokens: bool = False) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(hidden))
        self.label = nn.Embedding(num_classes, hidden) if num_classes else None
        self.text = nn.Sequential(nn.Linear(text_dim, hidden), nn.SiLU()) if text_dim else None
        self.text_mean: Tensor
        self.text_whitening: Tensor
        if text_dim:
            self.register_buffer("text_mean", torch.zeros(text_dim))
            self.register_buffer("text_whitening", torch.eye(text_dim))
        if text_tokens:
            self.null_token = nn.Parameter(torch.zeros(text_dim))

    def fit_text(self, pooled: Tensor, power: float = 0.5) -> None:
        """Measure mean and partial whitening of the training captions' pooled vectors (n, d).

        Along each principal axis the vectors are divided by std^power (1 would whiten fully), then all to unit mean
        variance. Sentence encoders put "flag: France" and "flag: Spain" side by side; this moves them apart.
        """
        mean = pooled.double().mean(0)
        centred = pooled.double() - mean
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(pooled))
        variance = variance.clamp(min=0)
        damped = (variance + 1e-3 * variance.mean()).clamp(min=1e-12) ** (-power / 2)
        scaled = damped / (variance * damped.square()).mean().sqrt().clamp(min=1e-6)
        self.text_mean.copy_(mean)
        self.text_whitening.copy_(axes * scaled)

    def forward(self, cond: Condition) -> Tensor:
        null = self.null.expand(len(cond), -1)
        given = torch.zeros_like(null)
        if self.label is not None and cond.label is not None:
            given = given + self.label(cond.label)
        if self.text is not None and cond.text is not None:
            given = given + self.text((cond.text.pooled - self.text_mean) @ self.text_whitening)
        return torch.where(cond.null[:, None], null, given)

    def context(self, cond: Condition) -> tuple[Tensor, Tensor]:
        """Tokens (b, 1 + n, d) and mask for cross-attention: a learned first token that null rows see alone."""
        first = self.null_token.expand(len(cond), 1, -1)
        if cond.text is None:
            return first, torch.ones(len(cond), 1, dtype=torch.bool, device=first.device)
        seen = nn.functional.pad(cond.text.mask & ~cond.null[:, None], (1, 0), value=True)
        return torch.cat([first, cond.text.tokens], dim=1), seen


class TiledMap(nn.Module):
    """The walkthrough's condition map, the same at every position: noise level in 32 channels, condition in the rest.

    hidden (b, hidden) and time (b,) -> (b, 32 + channels, h, w) of x_t's size, concatenated to x_t. The time is 1000 t
    for levels t in [0, 1] (`Process.network_time`), so time / 1000 is the walkthrough's noise level.
    """

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.channels = LEVEL_CHANNELS + channels
        self.project = nn.Linear(hidden, channels)

    def forward(self, hidden: Tensor, time: Tensor, x_t: Tensor) -> Tensor:
        level = sinusoidal_embedding(time / 1000, LEVEL_CHANNELS).to(hidden.dtype)
        vector = torch.cat([level, self.project(hidden)], dim=1)
        return vector[:, :, None, None].expand(-1, -1, *x_t.shape[2:])


class LayoutMap(nn.Module):
    """The condition as a picture: hidden vector (b, hidden) -> map (b, channels, size, size), concatenated to x_t.

    A learned layout: what should stand where, known to the first convolution. On few concepts it is what turns mush
    into things (docs/log.md).
    """

    def __init__(self, hidden: int, channels: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        self.shape = (channels, size, size)
        self.layout = nn.Linear(hidden, channels * size * size)

    def forward(self, hidden: Tensor, time: Tensor, x_t: Tensor) -> Tensor:
        return self.layout(hidden).unflatten(1, self.shape)
