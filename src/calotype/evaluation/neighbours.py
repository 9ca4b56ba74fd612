"""The training pictures nearest to given ones: by features, or by pixels whatever small shift or mirror image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad

from calotype.evaluation.similarity import centred_cosine

LOOKING_SIDE = 16  # pixels a side at which pictures are compared: noise and an autoencoder's loss hide no copy
_MOVING_SIDE = 32  # and at which they are moved by a pixel
_CHUNK, _SHRUNK = 64, 2048  # queries, and pictures, at once


def nearest(queries: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and id of, the nearest training picture of each query, (n,) and (n,), as `nearest_few` has them."""
    distances, ids = nearest_few(queries, training, 1)
    return distances[:, 0], ids[:, 0]


def nearest_few(queries: Tensor, training: Tensor, count: int, *, but: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances (n, count) to, and ids of, the nearest training pictures, nearest first.

    d(x, t) = 1 - cos(x - m, t - m), m the training mean. Both are features, (n, d) and (k, d), or both are pictures,
    (n, c, h, w) in [-1, 1] or uint8: those are compared at 16 pixels a side, and d is the least over the query, its
    mirror image and either of them moved by up to a 32nd of its side (two pixels of 64) each way. `but` (n,): the id
    that each query may not be given.
    """
    if queries.ndim == 2:
        return _best(1 - centred_cosine(queries, training, training.float().mean(dim=0)), count, but)
    if queries.ndim != 4 or queries.shape[1:] != training.shape[1:]:
        raise ValueError(f"features or pictures of one shape: {tuple(queries.shape)}, {tuple(training.shape)}")
    small = _shrunk(training, LOOKING_SIDE).flatten(1)
    centre = small.mean(dim=0)
    small = normalize(small - centre, dim=1)
    found = [
        _nearest_views(part, small, centre, count, None if but is None else but[start : start + _CHUNK])
        for start, part in zip(range(0, len(queries), _CHUNK), queries.split(_CHUNK), strict=True)
    ]
    return torch.cat([distances for distances, _ in found]), torch.cat([ids for _, ids in found])


def _nearest_views(
    queries: Tensor, small: Tensor, centre: Tensor, count: int, but: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Candidates by the picture and its mirror image; only those are compared with the moved ones."""
    views = normalize(_views(_shrunk(queries, _MOVING_SIDE)).flatten(2) - centre, dim=2)
    plain = views[:, :2].flatten(0, 1) @ small.T
    coarse = 1 - plain.view(len(queries), 2, -1).amax(dim=1)
    _, candidates = _best(coarse, 2 * count, but)
    likeness = torch.einsum("nvd,nkd->nvk", views, small[candidates]).amax(dim=1)
    distances, order = (1 - likeness).clamp(min=0).sort(dim=1, stable=True)
    return distances[:, :count], candidates.gather(1, order)[:, :count]


def _best(distances: Tensor, count: int, but: Tensor | None) -> tuple[Tensor, Tensor]:
    available = distances.shape[1]
    if but is not None:
        distances = distances.scatter(1, but[:, None], float("inf"))
        available -= 1
    values, ids = distances.topk(min(count, available), dim=1, largest=False)
    return values, ids


def _shrunk(pictures: Tensor, side: int) -> Tensor:
    """Float pictures of `side` pixels a side, by area; few at once, for ten thousand as floats fill a memory."""
    parts = [interpolate(part.float(), size=(side, side), mode="area") for part in pictures.split(_SHRUNK)]
    return torch.cat(parts) / 127.5 - 1 if pictures.dtype == torch.uint8 else torch.cat(parts)


def _views(images: Tensor) -> Tensor:
    """It, its mirror image, and both moved by a pixel, edges repeated: (n, c, 32, 32) to (n, 18, c, 16, 16)."""
    n, c, side, _ = images.shape
    both = torch.stack([images, images.flip(-1)], dim=1)
    padded = pad(both.flatten(0, 1), (1, 1, 1, 1), mode="replicate").view(n, 2, c, side + 2, side + 2)
    moves = [(1, 1), *[(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]]
    views = torch.cat([padded[..., y : y + side, x : x + side] for y, x in moves], dim=1)
    return _shrunk(views.flatten(0, 1), LOOKING_SIDE).unflatten(0, (n, -1))
