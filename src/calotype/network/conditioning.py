"""What a picture is asked to be: a class, a text, or nothing. The null condition lives here and only here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from calotype.core.types import TextEmbedding
from calotype.nn import sinusoidal_embedding

LEVEL_CHANNELS = 32  # of a tiled map: the noise level


@dataclass(frozen=True)
class Condition:
    """A batch of conditions: a class, a text, both, or nothing in each row.

    `null` (b,) bool marks rows that ask for nothing: the network gives them its learned null embedding, which is what
    classifier-free guidance compares with (Ho & Salimans 2022). `label` (b,) int64 is -1 where a row has no class;
    `texted` (b,) bool is False where it has no text (None: every row has one). An unconditional model has only nulls.
    """

    null: Tensor
    label: Tensor | None = None
    text: TextEmbedding | None = None
    texted: Tensor | None = None

    def __len__(self) -> int:
        return len(self.null)

    def __getitem__(self, index: Any) -> Condition:
        return self._map(lambda part: part[index])

    def to(self, device: Any) -> Condition:
        return self._map(lambda part: part.to(device))

    def _map(self, change: Callable[[Any], Any]) -> Condition:
        parts = (self.label, self.text, self.texted)
        return Condition(change(self.null), *(None if part is None else change(part) for part in parts))

    def dropped(self, rows: Tensor | None = None) -> Condition:
        """The same batch with these rows (b,) bool (default: all) made null."""
        return replace(self, null=self.null | (torch.ones_like(self.null) if rows is None else rows))

    def dropped_parts(self, texts: Tensor, labels: Tensor) -> Condition:
        """The same batch without the texts and the classes of these rows (b,) bool; a row left with neither is null."""
        if self.text is None or self.label is None:
            raise ValueError("a condition of one part has no other to be asked for alone")
        texted, label = self.with_text & ~texts, self.label.masked_fill(labels, -1)
        return Condition(self.null | ~texted & (label < 0), label, self.text, texted)

    @property
    def with_text(self) -> Tensor:
        """Rows (b,) bool whose text counts."""
        if self.text is None:
            return torch.zeros_like(self.null)
        given = torch.ones_like(self.null) if self.texted is None else self.texted
        return given & ~self.null

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
        """Rows of all parts, in order; a part may lack what others have, tokens are padded to one length."""
        null = torch.cat([part.null for part in parts])
        label = text = texted = None
        if any(part.label is not None for part in parts):
            none = null.new_full((len(null),), -1, dtype=torch.int64)
            label = torch.cat([none[: len(p)] if p.label is None else p.label for p in parts])
        if given := [part.text for part in parts if part.text is not None]:
            text = _cat_text([_no_text(len(part), given[0]) if part.text is None else part.text for part in parts])
            texted = torch.cat([part.with_text for part in parts])
        return Condition(null, label, text, texted)


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
    """Condition -> one hidden vector (b, hidden), eq. 52: silu(text + class), or silu(a learned one) for a null row.

    Before the silu all is linear in what a row asks with, so that the whole is one projection layer elsewhere too.
    Text goes in whitened with the statistics of the training captions (`fit_text`), which are buffers here so that
    they travel with the weights.
    """

    def __init__(self, hidden: int, *, num_classes: int = 0, text_dim: int = 0) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(hidden))
        self.label = nn.Embedding(num_classes, hidden) if num_classes else None
        self.text = nn.Linear(text_dim, hidden) if text_dim else None
        self.text_mean: Tensor
        self.text_whitening: Tensor
        self.text_limit: Tensor
        if text_dim:
            self.register_buffer("text_mean", torch.zeros(text_dim))
            self.register_buffer("text_whitening", torch.eye(text_dim))
            self.register_buffer("text_limit", torch.tensor(torch.inf))

    def fit_text(self, pooled: Tensor, power: float = 0.5) -> None:
        """Measure mean and partial whitening of the training captions' pooled vectors (n, d).

        Along each principal axis the vectors are divided by std^power (1 would whiten fully), then all to unit mean
        variance. Sentence encoders put "flag: France" and "flag: Spain" side by side; this moves them apart. Axes along
        which the captions do not differ are left out: nothing is learned of them. `text_limit` becomes the norm of the
        caption furthest from the mean.
        """
        mean = pooled.double().mean(0)
        centred = pooled.double() - mean
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(pooled))
        variance = variance.clamp(min=0)
        damped = (variance + 1e-3 * variance.mean()).clamp(min=1e-12) ** (-power / 2)
        damped *= variance / (variance + 1e-5 * variance.mean()).clamp(min=1e-12)
        scaled = damped / (variance * damped.square()).mean().sqrt().clamp(min=1e-6)
        self.text_mean.copy_(mean)
        self.text_whitening.copy_(axes * scaled)
        self.text_limit.zero_()
        self.extend_reach(pooled)

    def extend_reach(self, pooled: Tensor) -> None:
        """Let `text_limit` take in these captions (n, d) too: a model that is trained on meets new ones."""
        norms = ((pooled - self.text_mean) @ self.text_whitening).norm(dim=1)
        self.text_limit.copy_(torch.maximum(self.text_limit, norms.max()))

    def within_reach(self, pooled: Tensor) -> Tensor:
        """Pooled text (b, d), brought no further from the mean than the training captions are (eq. 53).

        Whitening enlarges what is rare among the captions, so that a prompt of other words may lie many times further
        out than any of them, where the network was never trained: static, instead of the likeliest thing it knows.
        """
        offset = pooled - self.text_mean
        norm = (offset @ self.text_whitening).norm(dim=1, keepdim=True)
        return self.text_mean + offset * (self.text_limit / norm).clamp(max=1)

    def forward(self, cond: Condition) -> Tensor:
        null = self.null.expand(cond.null.shape[0], -1)  # len() would fix the batch size of an exported graph
        given = torch.zeros_like(null)
        if self.label is not None and cond.label is not None:
            given = given + self.label(cond.label.clamp(min=0)) * (cond.label >= 0)[:, None]
        if self.text is not None and cond.text is not None:
            pooled = self.within_reach(cond.text.pooled)
            text = self.text((pooled - self.text_mean) @ self.text_whitening)
            given = given + text * cond.with_text[:, None]
        return nn.functional.silu(torch.where(cond.null[:, None], null, given))


def text_context(cond: Condition, token_dim: int) -> tuple[Tensor, Tensor]:
    """Tokens (b, 1 + n, d) and mask for cross-attention; the first token is zero, and all that a row without text sees.

    So nobody attends to nothing, which would be 0/0, and no parameter is needed to say "no text".
    """
    if cond.text is None:
        first = torch.zeros(cond.null.shape[0], 1, token_dim, device=cond.null.device)
        return first, torch.ones_like(first[..., 0], dtype=torch.bool)
    seen = nn.functional.pad(cond.text.mask & cond.with_text[:, None], (1, 0), value=True)
    return nn.functional.pad(cond.text.tokens, (0, 0, 1, 0)), seen


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
