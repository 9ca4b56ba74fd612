"""The numbers that the health gate judges: how cached latents are spread, and whether cache and VAE agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.latents import tiling
from calotype.latents.cache import LatentSet
from calotype.latents.codec import Codec
from calotype.latents.vae import ConvVAE

MOST_TRAINED, MOST_HELD_OUT, MOST_PROBED = 2048, 256, 48
MOST_NUMBERS = 4_000_000  # of latents looked at: 16 MB a tensor
MOST_PIXELS = 8_000_000  # that go through the VAE: 128 px pictures are all looked at, of 512 px a few dozen
BATCH = 32
FAR = 5.0  # standard deviations; one normal number in 1.7 million lies further out
LOWEST, HIGHEST = -19.9, 4.9  # log-variances as good as at our VAE's limits of -20 and 5


@dataclass(frozen=True)
class Channel:
    """One channel: `mean` and `std` of x0 (0 and 1 are due, give or take the errors), `raw_*` before standardising.

    `signal` is the share of the variance that tells pictures apart, var(mean) / (var(mean) + mean(std^2)); `kl` is in
    nats a number; `use` how far the decoder's pictures move, rms in [-1, 1], when the channel is set to its mean.
    """

    mean: float
    mean_error: float
    std: float
    std_error: float
    raw_mean: float
    raw_std: float
    kl: float
    signal: float
    skew: float
    excess_kurtosis: float
    beyond_5: float
    largest: float
    at_limits: float
    logvar_low: float
    logvar_high: float
    use: float = math.nan


@dataclass(frozen=True)
class Trained:
    """The cached latents of training pictures: finite ones' channels, and the share of numbers that are not finite."""

    count: int
    channels: tuple[Channel, ...]
    not_finite: float
    bound: float
    x0: Tensor  # (n, c, h, w), drawn: what the denoiser would be shown


@dataclass(frozen=True)
class Agreement:
    """Cached posteriors beside fresh ones of the same pictures, in units of each channel's std.

    `channels` (c, c): rms distance of cached channel i to fresh channel j. `pictures` (n, n): the same of pictures.
    `widths` is how far apart the posteriors' std lie; `factor` what the fresh means are to be multiplied with to come
    closest to the cached ones, and `unexplained` what then remains.
    """

    channels: Tensor
    pictures: Tensor
    widths: float
    factor: float
    unexplained: float


def spread_evenly(ids: Tensor, most: int) -> Tensor:
    """At most `most` of `ids`, evenly chosen, first and last among them."""
    return ids if len(ids) <= most else ids[torch.linspace(0, len(ids) - 1, most).round().long()]


def affordable(codec: Codec, ids: Tensor, most: int) -> Tensor:
    """At most `most` of `ids`, fewer where pictures are large: all of them go through the VAE."""
    return spread_evenly(ids, max(16, min(most, MOST_PIXELS // codec.image_size**2)))


def measure_trained(latents: LatentSet, ids: Tensor, noisy: bool) -> Trained:
    """The distribution of the standardised latents of training pictures `ids`, plain and mirrored.

    `noisy`: whether a log-variance at its lower limit means something (a pretrained VAE may be certain by design).
    """
    shape = latents.shape
    chosen = spread_evenly(ids, max(16, min(MOST_TRAINED, MOST_NUMBERS // (2 * math.prod(shape)))))
    sides = [latents.posterior(chosen, torch.full((len(chosen),), mirrored)) for mirrored in (False, True)]
    mean, std = (torch.cat([side[k].cpu().float() for side in sides], dim=3) for k in (0, 1))  # side by side
    finite = (mean.isfinite() & std.isfinite()).flatten(1).all(1)
    lost = 1 - float((mean.isfinite() & std.isfinite()).float().mean())
    if not finite.any():
        return Trained(len(chosen), (), lost, math.nan, torch.zeros(0, *shape))
    mean, std = mean[finite], std[finite]
    center, scale = (torch.tensor(v).reshape(-1, 1, 1) for v in (latents.statistics.mean, latents.statistics.std))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    u, width = (mean - center) / scale, std / scale
    x0 = u + width * noise
    share = len(chosen) / len(ids)
    channels = tuple(
        _channel(mean[:, c], std[:, c], u[:, c], width[:, c], x0[:, c], share, noisy) for c in range(shape[0])
    )
    return Trained(len(chosen), channels, lost, float(_quantile(u.abs(), 0.995)), x0[..., : shape[2]])


def _channel(mean: Tensor, std: Tensor, u: Tensor, width: Tensor, x0: Tensor, share: float, noisy: bool) -> Channel:
    """Of one channel, each (n, h, w). Errors are those of a sample of whole pictures, 0 where all were looked at."""
    per_picture = torch.stack([u.double().mean((1, 2)), (u.double() ** 2 + width.double() ** 2).mean((1, 2))])
    first, second = per_picture.mean(1).tolist()
    n = per_picture.shape[1]
    errors = (per_picture.std(1) * math.sqrt((1 - share) / n)).tolist() if n > 1 else [0.0, 0.0]
    deviation = math.sqrt(max(second - first**2, 1e-20))
    raw_mean, raw_square = float(mean.double().mean()), float((mean.double() ** 2 + std.double() ** 2).mean())
    raw_variance = max(raw_square - raw_mean**2, 1e-20)
    logvar = 2 * std.double().clamp(min=1e-12).log()
    z = (x0.double() - x0.double().mean()) / x0.double().std().clamp(min=1e-10)
    low, high = mean.min(), mean.max()
    return Channel(
        mean=first,
        mean_error=errors[0],
        std=deviation,
        std_error=errors[1] / (2 * deviation),
        raw_mean=raw_mean,
        raw_std=math.sqrt(raw_variance),
        kl=float(0.5 * (mean.double() ** 2 + logvar.exp() - 1 - logvar).mean()),
        signal=float(mean.double().var(correction=0)) / raw_variance,
        skew=float((z**3).mean()),
        excess_kurtosis=float((z**4).mean()) - 3,
        beyond_5=float((z.abs() > FAR).double().mean()),
        largest=float(z.abs().max()),
        at_limits=min(float((mean == low).double().mean()), float((mean == high).double().mean())),
        logvar_low=float((logvar <= LOWEST).double().mean()) if noisy else 0.0,
        logvar_high=float((logvar >= HIGHEST).double().mean()),
    )


@torch.no_grad()
def fresh_posteriors(codec: Codec, images: Tensor) -> tuple[Tensor, Tensor]:
    """Raw mean and std (n, c, h, w) of `images`, encoded now; on the CPU."""
    parts = [tiling.encode(codec.vae, part.to(codec.mean.device)) for part in images.split(BATCH)]
    return torch.cat([mean.cpu() for mean, _ in parts]), torch.cat([(0.5 * logvar).exp().cpu() for _, logvar in parts])


def measure_agreement(codec: Codec, latents: LatentSet, pictures: PictureSet, ids: Tensor) -> Agreement:
    """The cache beside the codec, on pictures `ids` and their next neighbours, which a cache out of step confuses.

    Where the cache holds mirrored ones, every second pair is compared mirrored.
    """
    ids = torch.cat([ids, ids + 1]).clamp(max=len(pictures) - 1).unique()
    flipped = torch.arange(len(ids)) // 2 % 2 == 1  # neighbours alike
    mean, std = latents.posterior(ids, flipped)
    images = to_float(pictures.pixels[ids])
    if not torch.equal(mean, latents.posterior(ids)[0]):
        images = torch.where(flipped.reshape(-1, 1, 1, 1), images.flip(-1), images)
    fresh_mean, fresh_std = fresh_posteriors(codec, images)
    mean, std = mean.cpu().nan_to_num(), std.cpu().nan_to_num()
    axes = (0, 2, 3)
    total = (fresh_mean.var(axes, unbiased=False) + fresh_std.square().mean(axes)).sqrt()
    unit = torch.maximum(total, 1e-3 * torch.maximum(total.max(), fresh_mean.abs().amax(axes))).reshape(-1, 1, 1)
    a, b = mean / unit, fresh_mean / unit
    factor = float((mean * fresh_mean).double().sum() / fresh_mean.double().square().sum().clamp(min=1e-20))
    return Agreement(
        channels=_distances(mean.transpose(0, 1).flatten(1), fresh_mean.transpose(0, 1).flatten(1)) / unit.flatten(),
        pictures=_distances(a.flatten(1), b.flatten(1)),
        widths=float(((std - fresh_std) / unit).square().mean().sqrt()),
        factor=factor,
        unexplained=float((a - factor * b).square().mean().sqrt()) / max(abs(factor), 1e-20),
    )


@torch.no_grad()
def channel_use(codec: Codec, x0: Tensor) -> list[float]:
    """For each channel, how far decoded pictures move (rms) when it is set to its mean, 0."""
    device = codec.mean.device
    whole = codec.decode(x0.to(device))
    moved = []
    for c in range(x0.shape[1]):
        without = x0.clone()
        without[:, c] = 0
        moved.append(float((codec.decode(without.to(device)) - whole).square().mean().sqrt()))
    return moved


def is_certain_by_design(codec: Codec) -> bool:
    """Whether a posterior without noise is no fault: another's VAE came with it."""
    return not isinstance(codec.vae, ConvVAE)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(m, k), (n, k) -> (m, n) root mean squared distances."""
    a, b = a.double(), b.double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(a.shape[1])


def _quantile(values: Tensor, q: float) -> Tensor:
    flat = values.flatten()
    return torch.quantile(flat[:: -(-flat.numel() // 1_000_000)], q)
