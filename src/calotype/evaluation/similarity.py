"""The one measure of likeness that the scores share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from calotype.core.errors import UserError


def centred_cosine(vectors: Tensor, others: Tensor, centre: Tensor) -> Tensor:
    """cos(x_i - m, y_j - m): vectors (n, d), others (k, d), centre m (d,) -> (n, k) float32 in [-1, 1].

    Feature vectors share a large mean that says "a picture"; without it what tells pictures apart decides. A vector
    that equals the centre is like nothing: 0.
    """
    if vectors.ndim != 2 or others.ndim != 2 or vectors.shape[1] != others.shape[1]:
        raise ValueError(f"vectors (n, d) and (k, d) are needed, not {tuple(vectors.shape)}, {tuple(others.shape)}")
    left = normalize(vectors.float() - centre.float(), dim=1)
    right = normalize(others.float() - centre.float(), dim=1)
    return (left @ right.T).clamp(-1, 1)


def two_sets(vectors: Tensor, others: Tensor, *, at_least: int) -> tuple[Tensor, Tensor]:
    """Both sets (n, d) and (k, d) in double precision, checked: of one width, large enough, finite."""
    if vectors.ndim != 2 or others.ndim != 2 or vectors.shape[1] != others.shape[1]:
        raise ValueError(f"features (n, d) and (k, d) are needed, not {tuple(vectors.shape)}, {tuple(others.shape)}")
    if min(len(vectors), len(others)) < at_least:
        raise ValueError(f"at least {at_least} pictures a side are needed, not {len(vectors)} and {len(others)}")
    if not (vectors.isfinite().all() and others.isfinite().all()):
        raise UserError("the pictures' features are not all finite numbers", "draw the pictures again, in float32")
    return vectors.double(), others.double()
