"""The health gate's picture: originals, what the cache gives back, latent maps, and how their values are spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from calotype.images.grid import plot_images, to_pil
from calotype.images.similarity import psnr

TILE = 128
MOST_CHANNELS = 8
REACH = 4.0  # of maps and histograms, in standard deviations
_INK, _PAPER, _PRINT, _SLATE = (40, 40, 40), (255, 255, 255), (192, 164, 178), (47, 106, 136)


@dataclass(frozen=True)
class Shown:
    """k pictures (k, 3, H, W) in [-1, 1], their latents x0 (k, c, h, w), and values (c, m) of x0 for the histograms."""

    originals: Tensor
    rebuilt: Tensor
    x0: Tensor
    values: Tensor
    mean_picture: Tensor
    blocks: Tensor


def draw(shown: Shown) -> Image.Image:
    """Columns are pictures, and in the last one the two dull rivals and every channel's histogram with N(0, 1)."""
    tiles = _tiles(shown.originals) + _tiles(shown.mean_picture[None])
    captions = ["original", *[""] * (len(shown.originals) - 1), "the mean picture"]
    tiles += _tiles(shown.rebuilt) + _tiles(shown.blocks[-1:])
    scores = [f"{score:.1f} dB" for score in psnr(shown.originals, shown.rebuilt).tolist()]
    rival = psnr(shown.originals[-1:], shown.blocks[-1:]).item()
    captions += [f"rebuilt, {scores[0]}", *scores[1:], f"in blocks, {rival:.1f} dB"]
    channels = shown.x0.shape[1]
    for c in range(min(channels, MOST_CHANNELS)):
        maps = (shown.x0[:, c : c + 1] / REACH).expand(-1, 3, -1, -1)
        tiles += [*_tiles(maps, smooth=False), _histogram(shown.values[c])]
        values = shown.values[c]
        spread = f"mean {_rounded(values.mean())}, std {_rounded(values.std())}" if len(values) > 1 else "no values"
        of = f" of {channels}" if channels > MOST_CHANNELS else ""
        captions += [f"channel {c}{of}", *[""] * (len(maps) - 1), spread]
    return plot_images(tiles, columns=len(shown.originals) + 1, captions=captions, pad=4)


def _rounded(value: Tensor) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}"  # never "-0.00"


def _tiles(images: Tensor, smooth: bool = True) -> list[Image.Image]:
    how = Image.Resampling.LANCZOS if smooth and images.shape[-1] > TILE else Image.Resampling.NEAREST
    return [picture.resize((TILE, TILE), how) for picture in to_pil(images.clamp(-1, 1))]


def _histogram(values: Tensor) -> Image.Image:
    """Densities as bars, N(0, 1) as a line; what lies beyond the reach is counted at the edges."""
    picture = Image.new("RGB", (TILE, TILE), _PAPER)
    pen = ImageDraw.Draw(picture)
    bins, foot = TILE // 4, TILE - 10
    high = 1.6 / math.sqrt(2 * math.pi)  # the highest density that is drawn
    if len(values):
        counts = torch.histc(values.float().clamp(-REACH, REACH), bins, -REACH, REACH)
        density = counts / counts.sum() * bins / (2 * REACH)
        for k, value in enumerate(density.tolist()):
            top = foot - min(value / high, 1.0) * (foot - 4)
            pen.rectangle((4 * k, top, 4 * k + 2, foot), fill=_PRINT)
    places = torch.linspace(-REACH, REACH, TILE)
    heights = torch.exp(-0.5 * places.square()) / math.sqrt(2 * math.pi) / high * (foot - 4)
    pen.line([(x, foot - height) for x, height in enumerate(heights.tolist())], fill=_SLATE, width=2)
    pen.line((0, foot, TILE, foot), fill=_INK)
    for place in range(-int(REACH), int(REACH) + 1, 2):
        x = (place + REACH) / (2 * REACH) * (TILE - 1)
        pen.line((x, foot, x, foot + 4), fill=_INK)
    return picture
