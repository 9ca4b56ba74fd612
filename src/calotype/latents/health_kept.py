"""What pictures keep on their way through the VAE, beside two dull rivals; the ceiling of everything after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.images.similarity import WINDOW, psnr, ssim
from calotype.latents.codec import Codec
from calotype.latents.health_measures import BATCH, spread_evenly

BEST_PSNR = 60.0  # what an exact copy counts for, so that one blank picture does not make a mean infinite
GREY = 0.02  # rms distance of a colour to its grey, in [-1, 1], below which pictures count as black and white
FLAT = 4 / 127.5  # the widest range of values in [-1, 1] of a picture that counts as one flat colour


@dataclass(frozen=True)
class Kept:
    """What pictures keep on their way through the VAE; mean over pictures, PSNR in dB.

    `mean_picture` and `blocks` are the PSNR of two dull rivals: the mean training picture, and averages over squares of
    f x f pixels. `contrast` and `colour` are spreads of the reconstructions over those of the originals (colour nan
    where the originals have none); `colours` (3, 3) the mean squared distance of colour i made to colour j wanted.
    """

    count: int
    psnr: float
    ssim: float
    mean_picture: float
    blocks: float
    explained: float
    contrast: float
    colour: float
    colours: Tensor


@torch.no_grad()
def measure_kept(codec: Codec, pictures: PictureSet, ids: Tensor, mean_picture: Tensor) -> tuple[Kept, Tensor]:
    """What pictures `ids` keep, and their reconstructions (n, 3, h, w) on the CPU."""
    made = []
    sums = _Sums()
    f = codec.vae.config.downsampling
    for part in ids.split(BATCH):
        images = to_float(pictures.pixels[part])
        rebuilt = codec.decode(codec.encode(images.to(codec.mean.device))).cpu().float()
        made.append(rebuilt)
        sums.add(images, rebuilt, mean_picture, f)
    return sums.kept(), torch.cat(made)


class _Sums:
    """Sums over pictures, so that only one batch of them is held at a time."""

    def __init__(self) -> None:
        self.per_picture: list[Tensor] = []  # psnr, ssim, mean picture's psnr, blocks' psnr
        self.totals: list[Tensor] = []
        self.colours = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, images: Tensor, rebuilt: Tensor, mean_picture: Tensor, f: int) -> None:
        dull = mean_picture.expand_as(images)
        scores = [psnr(images, rebuilt), psnr(images, dull), psnr(images, blocks(images, f))]
        alike = ssim(images, rebuilt) if min(images.shape[-2:]) >= WINDOW else torch.full((len(images),), math.nan)
        self.per_picture.append(torch.stack([*(score.clamp(max=BEST_PSNR) for score in scores), alike]))
        luma, luma_made = images.mean(1), rebuilt.mean(1)
        squares = (
            (images - rebuilt).square(),
            (images - dull).square(),
            (luma_made - luma_made.mean((1, 2), keepdim=True)).square(),
            (luma - luma.mean((1, 2), keepdim=True)).square(),
            (rebuilt - luma_made[:, None]).square(),
            (images - luma[:, None]).square(),
        )
        self.totals.append(torch.stack([square.double().mean() * len(images) for square in squares]))
        for made in range(3):
            for wanted in range(3):
                distance = (rebuilt[:, made] - images[:, wanted]).double().square().mean()
                self.colours[made, wanted] += distance * len(images)

    def kept(self) -> Kept:
        scores = torch.cat(self.per_picture, dim=1)
        count = scores.shape[1]
        psnr_made, psnr_mean, psnr_blocks, alike = scores.mean(1).tolist()
        wrong, spread, luma_made, luma, chroma_made, chroma = (torch.stack(self.totals).sum(0) / count).tolist()
        return Kept(
            count=count,
            psnr=psnr_made,
            ssim=alike,
            mean_picture=psnr_mean,
            blocks=psnr_blocks,
            explained=1 - wrong / max(spread, 1e-12),
            contrast=math.sqrt(luma_made / luma) if luma > 1e-6 else math.nan,
            colour=math.sqrt(chroma_made / chroma) if chroma > GREY**2 else math.nan,
            colours=self.colours / count,
        )


def blocks(images: Tensor, f: int) -> Tensor:
    """Every f x f square filled with its mean colour: as many numbers as three channels of latent."""
    return interpolate(avg_pool2d(images, f), scale_factor=float(f))


def mean_of(pictures: PictureSet, ids: Tensor) -> Tensor:
    """The mean picture (3, h, w) of at most 512 of `ids`, in [-1, 1]."""
    chosen = spread_evenly(ids, 512)
    total = sum(to_float(pictures.pixels[part]).double().sum(0) for part in chosen.split(BATCH))
    assert isinstance(total, Tensor)
    return (total / len(chosen)).float()


def picture_spread(pictures: PictureSet, ids: Tensor) -> tuple[float, float]:
    """Share of pictures `ids` that are one flat colour, and how much pictures differ from their mean: rms, [-1, 1]."""
    images = to_float(pictures.pixels[ids])
    flat = (images.amax((2, 3)) - images.amin((2, 3))).amax(1) <= FLAT
    return float(flat.float().mean()), float((images - images.mean(0)).square().mean().sqrt())


def feature_distance(
    originals: Tensor, others: Tensor, rebuilt: Tensor, distance: Callable[[Tensor, Tensor], float]
) -> dict[str, float | str]:
    """`distance` on features of originals to their reconstructions, and to `others`, as real: the floor."""
    from calotype.features import load_extractor

    extractor = load_extractor()
    real = extractor(originals)
    return {
        "network": extractor.name,
        "pictures": len(originals),
        "reconstructed": distance(real, extractor(rebuilt)),
        "real": distance(real, extractor(others)),
    }
