"""Large pictures through a VAE in overlapping tiles, so that memory is bounded by the tile and not by the picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from calotype.latents.first_stage import FirstStage

# In positions of the latent, per side. An f8 VAE sees 768 px whole: a map of 128 channels there is 302 MB a picture.
LARGEST = 96  # latents of more than LARGEST x LARGEST positions are cut
TILE = 64
OVERLAP = 16  # that two neighbours share, at least
RAMP = 8  # over which one gives way to the other; what is nearer to a tile's edge saw padding, and is not used


def encode(vae: FirstStage, images: Tensor) -> tuple[Tensor, Tensor]:
    """`vae.encode`; in tiles where the latent would be large. Mean and logvar are blended alike."""
    f = vae.config.downsampling
    height, width = images.shape[-2] // f, images.shape[-1] // f
    if height * width <= LARGEST**2 or images.shape[-2] % f or images.shape[-1] % f:
        return vae.encode(images)

    def encode_tile(rows: slice, columns: slice) -> Tensor:
        return torch.cat(vae.encode(images[..., _scaled(rows, f), _scaled(columns, f)]), dim=1)

    mean, logvar = _blended(encode_tile, height, width, 1).chunk(2, dim=1)
    return mean, logvar


def decode(vae: FirstStage, z_raw: Tensor) -> Tensor:
    """`vae.decode`; in tiles where the latent is large."""
    height, width = z_raw.shape[-2:]
    if height * width <= LARGEST**2:
        return vae.decode(z_raw)
    f = vae.config.downsampling
    return _blended(lambda rows, columns: vae.decode(z_raw[..., rows, columns]), height, width, f)


def starts(length: int) -> list[int]:
    """Where tiles along a side of `length` positions begin: evenly, the first at 0, the last one ending at `length`."""
    if length <= TILE:
        return [0]
    steps = -(-(length - TILE) // (TILE - OVERLAP))
    return [round(i * (length - TILE) / steps) for i in range(steps + 1)]


def blending(begins: list[int], length: int, scale: int) -> list[Tensor]:
    """The weight of every tile along a side, (tile * scale,); together they are 1 everywhere.

    From one tile to the next it rises linearly over RAMP positions in the middle of what both see.
    """
    tile, positions = min(TILE, length), (torch.arange(length * scale) + 0.5) / scale
    middles = [(after + before + tile) / 2 for before, after in pairwise(begins)]
    rises = [((positions - middle) / RAMP + 0.5).clamp(0, 1) for middle in middles]
    rises = [torch.ones(length * scale), *rises, torch.zeros(length * scale)]
    steps = [entering - leaving for entering, leaving in pairwise(rises)]
    return [step[_scaled(slice(begin, begin + tile), scale)] for step, begin in zip(steps, begins, strict=True)]


def _blended(compute: Callable[[slice, slice], Tensor], height: int, width: int, scale: int) -> Tensor:
    """The sum of tiles, each `compute(rows, columns)` of positions, `scale` times as large, weighted by `blending`."""
    whole: Tensor | None = None
    tops, lefts = starts(height), starts(width)
    for top, down in zip(tops, blending(tops, height, scale), strict=True):
        for left, across in zip(lefts, blending(lefts, width, scale), strict=True):
            rows, columns = slice(top, top + min(TILE, height)), slice(left, left + min(TILE, width))
            tile = compute(rows, columns)
            if whole is None:
                whole = tile.new_zeros(*tile.shape[:2], height * scale, width * scale)
            weight = (down[:, None] * across[None]).to(tile)
            whole[..., _scaled(rows, scale), _scaled(columns, scale)] += weight * tile
    assert whole is not None
    return whole


def _scaled(positions: slice, scale: int) -> slice:
    return slice(positions.start * scale, positions.stop * scale)
