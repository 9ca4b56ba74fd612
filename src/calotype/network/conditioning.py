"""What a picture is asked to be: a class, a text, or nothing. The null condition lives here and only here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calotype.core.types import TextEmbedding


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
    def nothing(batch_size: int, device: Any = None) -> Condition:
        """An unconditional batch."""
        return Condition(torch.ones(batch_size, dtype=torch.bool, device=device))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Rows of all parts, in order; the parts carry the same fields, tokens padded to one length."""
        first = parts[0]
        label = None if first.label is None else torch.cat([part.label for part in parts])  # type: ignore[misc]
        text = None if first.text is None else _cat_text([part.text for part in parts])  # type: ignore[misc]
        return Condition(torch.cat([part.null for part in parts]), label, text)


def _cat_text(parts: Sequence[TextEmbedding]) -> TextEmbedding:
    length = max(part.tokens.shape[1] for part in parts)
    pad = torch.nn.functional.pad
    return TextEmbedding(
        torch.cat([part.pooled for part in parts]),
        torch.cat([pad(part.tokens, (0, 0, 0, length - part.tokens.shape[1])) for part in parts]),
        torch.cat([pad(part.mask, (0, length - part.mask.shape[1])) for part in parts]),
    )


class ConditionEmbedding(nn.Module):
    """Condition -> one vector (b, emb) that is added to the noise level's and reaches every block.

    Null rows get a learned vector. Text is first standardised with the statistics of the training captions
    (`fit_text`), which are buffers here so that they travel with the weights.
    """

    def __init__(self, emb_channels: int, *, num_classes: int = 0, text_dim: int = 0) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(emb_channels))
        self.label = nn.Embedding(num_classes, emb_channels) if num_classes else None
        self.text = (
            nn.Sequential(nn.Linear(text_dim, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels))
            if text_dim
            else None
        )
        self.text_mean: Tensor
        self.text_whitening: Tensor
        if text_dim:
            self.register_buffer("text_mean", torch.zeros(text_dim))
            self.register_buffer("text_whitening", torch.eye(text_dim))
            self.null_token = nn.Parameter(torch.zeros(text_dim))

    def fit_text(self, pooled: Tensor) -> None:
        """Measure mean and scale of the training captions' pooled vectors (n, d)."""
        self.text_mean.copy_(pooled.mean(0))
        self.text_whitening.copy_(torch.eye(pooled.shape[1]) / (pooled - pooled.mean(0)).std().clamp(min=1e-6))

    def forward(self, cond: Condition) -> Tensor:
        emb = self.null.expand(len(cond), -1)
        given = torch.zeros_like(emb)
        if self.label is not None and cond.label is not None:
            given = given + self.label(cond.label)
        if self.text is not None and cond.text is not None:
            given = given + self.text((cond.text.pooled - self.text_mean) @ self.text_whitening)
        return torch.where(cond.null[:, None], emb, given)

    def context(self, cond: Condition) -> tuple[Tensor, Tensor]:
        """Tokens (b, 1 + n, d) and mask for cross-attention: a learned first token that null rows see alone."""
        first = self.null_token.expand(len(cond), 1, -1)
        if cond.text is None:
            return first, torch.ones(len(cond), 1, dtype=torch.bool, device=first.device)
        seen = torch.nn.functional.pad(cond.text.mask & ~cond.null[:, None], (1, 0), value=True)
        return torch.cat([first, cond.text.tokens], dim=1), seen


class ConditionMap(nn.Module):
    """The condition as a picture: embedding (b, emb) -> map (b, channels, size, size), concatenated to x_t.

    The walkthrough's condition map is the same vector at every position. This one is a learned layout: what should
    stand where, known to the first convolution. On few concepts it is what turns mush into things (docs/log.md).
    """

    def __init__(self, emb_channels: int, channels: int, size: int) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.layout = nn.Linear(emb_channels, channels * size * size)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.layout(nn.functional.silu(embedding)).unflatten(1, self.shape)
