"""The contracts between the rooms. Data only passes through these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Denoiser(Protocol):
    """What is learned, dressed as D(x_t, t, cond) = x0_hat: (b, c, h, w), (b,) -> (b, c, h, w)."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor: ...


def innermost(denoiser: Any) -> Any:
    """What the wrappers wrap: each of them holds it under the name `denoiser`."""
    while hasattr(denoiser, "denoiser"):
        denoiser = denoiser.denoiser
    return denoiser


class Codec(Protocol):
    """Pictures to standardised latents and back.

    `encode`: images (b, 3, H, W) in [-1, 1] -> x0 (b, c, h, w), zero mean and unit variance per channel over the
    training set. `decode` is its (approximate) inverse.
    """

    latent_shape: tuple[int, int, int]

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TextEmbedding:
    """Captions as numbers: pooled (b, d) float, tokens (b, n, e) float, mask (b, n) bool (True = a real token)."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, index: Any) -> TextEmbedding:
        return TextEmbedding(self.pooled[index], self.tokens[index], self.mask[index])

    def to(self, device: Any) -> TextEmbedding:
        return TextEmbedding(self.pooled.to(device), self.tokens.to(device), self.mask.to(device))


class TextEncoder(Protocol):
    """Captions -> TextEmbedding. `id` names it, `fingerprint` is a sha256 of its weights, `dim` is d, `token_dim` e."""

    id: str
    fingerprint: str
    dim: int
    token_dim: int

    def encode(self, captions: list[str]) -> TextEmbedding: ...


class Step(Protocol):
    """One step of a sampler from t to t_next < t, both scalars shaped (); memory holds a multistep method's past."""

    def __call__(
        self,
        denoiser: Denoiser,
        process: Any,
        x_t: Tensor,
        t: Tensor,
        t_next: Tensor,
        *,
        cond: Any,
        noise: Tensor | None,
        memory: Any,
    ) -> tuple[Tensor, Any]: ...
