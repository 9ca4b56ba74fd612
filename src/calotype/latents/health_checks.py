"""What the health gate makes of its numbers: findings, each with the cause and the remedy.

Thresholds are from measurements: our VAE on icons, landscapes, black-and-white photographs and twenty pictures, after
20, 50, 100, 200, 500 and more steps (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from calotype.latents.codec import LatentStatistics
from calotype.latents.health_kept import Kept
from calotype.latents.health_measures import Agreement, Channel, Trained

Level = Literal["warn", "refuse"]

SAME = 0.1  # a cached latent this near to the fresh one, in std, is the same but for rounding
SCALE_OFF, SCALE_WRONG = 0.05, 0.2  # of mean, or of log std
SURE = 4.0  # standard errors
BOUND_OFF = 0.05  # of |x0|, which is all but 0 everywhere where every channel is dead
DEAD_SIGNAL, DEAD_RANGE, UNUSED = 0.02, 1e-3, 0.004
LIMIT_SHARE, CLIPPED_SHARE = 0.2, 0.005
FAR_SHARE, FAR_LARGEST = 2e-3, 25.0
LEAST_EXPLAINED, FAIRLY_EXPLAINED, LEAST_OF_BLOCKS = 1 / 3, 0.7, 1 / 3
FLAT_SHARE, FLAT_SPREAD = 0.5, 0.02
GREY_REFUSED, GREY_WARNED = 0.35, 0.6
SWAPPED = 0.6  # another order of colours must bring the error below this share
MEMORISED = 6.0  # dB between training and held-out pictures
FEW_HELD_OUT = 8

ENCODE_AGAIN = "remove 'latents' from the run folder and give the same command again: it encodes and measures anew"
TRAIN_LONGER = "give the VAE longer in a new --out: more --minutes, or --set vae.steps=3000 with --steps"
ANOTHER_VAE = (
    "choose another --from, vae.pretrained or vae.from, or train a VAE on these pictures (--set vae.from=scratch)"
)
KNOWS_MORE = "add pictures, or take a VAE that knows more: --from, --set vae.from=... or vae.pretrained=..."
MENDED_BY_TRAINING = (
    "undertrained",
    "grey",
    "dead-channel",
    "saturation",
    "outliers",
)  # checks; of a VAE that came trained


@dataclass(frozen=True)
class Finding:
    """One thing that is amiss. `broken`: parts do not belong together, and no length of training mends that."""

    check: str
    level: Level
    broken: bool
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def check_finite(trained: Trained, weights_finite: bool) -> Iterator[Finding]:
    """Numbers that are none."""
    if not weights_finite:
        yield _broken("non-finite", "the VAE's weights are not finite numbers, its training diverged", LOWER_RATE)
    elif trained.not_finite:
        share = f"{100 * trained.not_finite:.2g} % of the cached latents are not finite numbers"
        yield _broken("non-finite", f"{share}: damaged, or beyond 65,504, the most that half precision holds", AGAIN)


LOWER_RATE = "train the VAE in a new --out with a lower rate: --set vae.training.optimizer.lr=1e-3"
AGAIN = f"{ENCODE_AGAIN}; if this comes back, train the VAE with a larger --set vae.loss.kl_weight=0.01"


def check_agreement(agreement: Agreement) -> Iterator[Finding]:
    """Whether cache and codec belong together: the same channels, pictures, scale, weights."""
    own = agreement.pictures.diagonal()
    wrong = int((own > SAME).sum())
    if not wrong and agreement.widths <= SAME:
        return
    channels = best_order(agreement.channels)
    if not wrong:
        what = "the cached posteriors' deviations are not those that the VAE gives now"
        yield _broken("cache", f"{what} (off by {agreement.widths:.2g} std)", ENCODE_AGAIN)
    elif channels and _distance(agreement.channels, channels) <= SAME:
        yield _broken("latent-channels", f"the cached latents' channels are in another order, {channels}", ENCODE_AGAIN)
    elif agreement.unexplained <= SAME and abs(agreement.factor - 1) > SAME / 2:
        what = f"the cached latents are {agreement.factor:.4g} times what the VAE gives: something scaled them"
        yield _broken("cache", what, ENCODE_AGAIN)
    elif int((agreement.pictures.amin(1) <= SAME).sum()) > len(own) - wrong:
        what = f"cache and pictures are out of step: {wrong} of {len(own)} pictures have the latents of others"
        yield _broken("cache", what, ENCODE_AGAIN)
    else:
        apart = f"(rms distance {float(own.square().mean().sqrt()):.2g} std)"
        some = "" if wrong == len(own) else f" of {wrong} of {len(own)} pictures looked at"
        off = [c for c, distance in enumerate(agreement.channels.diagonal().tolist()) if distance > SAME]
        where = f" in {_named(off)}" if 0 < len(off) < len(agreement.channels) and not some else ""
        cause = "damaged, or of files that have changed" if some else "not those that this VAE gives for these pictures"
        yield _broken("cache", f"the cached latents{some} are {cause}{where} {apart}", ENCODE_AGAIN)


def check_scale(trained: Trained, statistics: LatentStatistics, codec: LatentStatistics) -> Iterator[Finding]:
    """Whether x0 has zero mean and unit std per channel, as the denoiser and its noise take for granted."""
    if not _alike(statistics, codec):
        what = "the codec's mean and std are not those that the latents were measured with"
        yield _broken("scale", what, ENCODE_AGAIN)
    channels, dead = trained.channels, _constant(trained.channels)
    worst = max((_scale_error(channel) for c, channel in enumerate(channels) if c not in dead), default=0.0)
    if worst > SCALE_OFF:
        cause, certain = _scale_cause(channels, statistics)
        std = ", ".join(f"{channel.std:.3g}" for channel in channels)
        mean = ", ".join(f"{round(channel.mean, 2) + 0.0:.2f}" for channel in channels)
        what = f"{cause}: standardised latents have std {std} and mean {mean} where 1 and 0 are due"
        if certain or worst > SCALE_WRONG:
            yield _broken("scale", what, ENCODE_AGAIN)
        else:
            yield Finding("scale", "warn", False, what, f"a new --out measures anew, or {ENCODE_AGAIN}")
    elif channels and not 0.5 * statistics.bound <= trained.bound + BOUND_OFF <= 2 * (statistics.bound + BOUND_OFF):
        what = f"the stored bound of |x0| is {statistics.bound:.3g}, the latents' own {trained.bound:.3g}"
        yield _broken("scale", what, ENCODE_AGAIN)


def _scale_cause(channels: tuple[Channel, ...], statistics: LatentStatistics) -> tuple[str, bool]:
    """The likeliest cause, and whether it is certain to be a fault, however small its effect."""
    if len(channels) > 1 and len(set(statistics.std)) == 1 and not any(statistics.mean):
        return f"the stored scale of {statistics.std[0]:.4g} is a constant from elsewhere, not measured", True
    table = [
        [abs(m - own.raw_mean) / own.raw_std + abs(math.log(s / own.raw_std)) for own in channels]
        for m, s in zip(statistics.mean, statistics.std)
    ]
    order = best_order_of(table)
    if order and max(table[i][j] for i, j in enumerate(order)) <= SCALE_OFF:
        return f"the stored mean and std are of channels in another order, {order}", True
    ratios = [channel.std for channel in channels]
    centred = all(abs(channel.mean) <= SCALE_OFF * channel.std + SURE * channel.mean_error for channel in channels)
    if max(ratios) / min(ratios) < 1.01 and centred and len(channels) > 1:
        return f"the stored scale is {1 / ratios[0]:.3g} times what it should be", True
    if max(map(_scale_error, channels)) <= SCALE_WRONG:
        return "the pictures have changed since mean and std were measured", False
    return "the stored mean and std are not those of these latents", True


def check_channels(trained: Trained, pretrained: bool) -> Iterator[Finding]:
    """Channels that are dead, saturated, or far from anything Gaussian."""
    channels = trained.channels
    constant = _constant(channels)
    dead = [c for c, channel in enumerate(channels) if c in constant or channel.signal < DEAD_SIGNAL]
    unused = [c for c, ch in enumerate(channels) if c not in dead and ch.use < UNUSED]
    used = len(channels) - len(dead) - len(unused)
    if channels and not used:
        what = "every latent channel is dead" if len(dead) == len(channels) else "the decoder ignores the latents"
        remedy = ANOTHER_VAE if pretrained else "train the VAE in a new --out with --set vae.loss.kl_weight=1e-4"
        yield Finding("dead-channel", "refuse", False, f"{what}: no trace of the pictures is left", remedy)
    elif dead or unused:
        fewer = f"or save its cost with --set vae.network.latent_channels={used}"
        remedy = ANOTHER_VAE if pretrained else f"train the VAE longer or with --set vae.loss.kl_weight=1e-4, {fewer}"
        if dead:
            what = f"{_named(dead)} {_is(dead)} dead, the same or noise for every picture"
            yield Finding("dead-channel", "warn", False, what, remedy)
        if unused:
            yield Finding("dead-channel", "warn", False, f"the decoder ignores {_named(unused)}", remedy)
    yield from _saturated([ch for c, ch in enumerate(channels) if c not in dead])
    far = [
        c for c, ch in enumerate(channels) if c not in dead and (ch.beyond_5 > FAR_SHARE or ch.largest > FAR_LARGEST)
    ]
    if far:
        most, share = max(channels[c].largest for c in far), max(channels[c].beyond_5 for c in far)
        what = f"{_named(far)} {_is(far)} far from Gaussian, {share:.2%} beyond 5 std and up to {most:.0f} std"
        remedy = "train the VAE with a larger --set vae.loss.kl_weight=0.01, and look for odd pictures in health.png"
        yield Finding("outliers", "warn", False, what, ANOTHER_VAE if pretrained else remedy)


def _saturated(channels: list[Channel]) -> Iterator[Finding]:
    low = max((channel.logvar_low for channel in channels), default=0.0)
    high = max((channel.logvar_high for channel in channels), default=0.0)
    if max(low, high) > LIMIT_SHARE:
        side = "lower limit of -20: no noise was left in the latents" if low >= high else "upper limit of 5: mere noise"
        weight = "0.01" if low >= high else "1e-4"
        what = f"{max(low, high):.0%} of a channel's log-variances are at their {side}"
        remedy = f"train the VAE with --set vae.loss.kl_weight={weight}"
        yield Finding("saturation", "warn", False, what, remedy)
    clipped = max((channel.at_limits for channel in channels), default=0.0)
    if clipped > CLIPPED_SHARE:
        what = f"{clipped:.1%} of a channel's values lie at its lowest and as many at its highest: they are clipped"
        yield Finding("saturation", "warn", False, what, "have the VAE's encoder give unbounded latents")


def check_pictures(flat: float, spread: float) -> Iterator[Finding]:
    """Pictures with nothing in them."""
    if flat > FLAT_SHARE or spread < FLAT_SPREAD:
        how = f"{flat:.0%} of the pictures are one flat colour" if flat > FLAT_SHARE else "all pictures are the same"
        remedy = "look at them (calotype data DATA draws a contact sheet) and give --out a new folder"
        yield Finding("flat-pictures", "refuse", False, f"{how}: there is nothing to learn", remedy)


def check_kept(trained: Kept, held_out: Kept | None, pretrained: bool) -> Iterator[Finding]:
    """Whether reconstructions are worth learning from; judged by the training pictures where few are held out."""
    kept = held_out if held_out is not None and held_out.count >= FEW_HELD_OUT else trained
    if not math.isfinite(kept.psnr):
        yield _broken("non-finite", "reconstructions are not finite numbers, the decoder diverged", LOWER_RATE)
        return
    remedy = ANOTHER_VAE if pretrained else TRAIN_LONGER
    order = best_order(kept.colours)
    if order and _error(kept.colours, order) < SWAPPED * _error(kept.colours, (0, 1, 2)):
        names = "".join("RGB"[j] for j in order)
        what = f"reconstructions have their colours in another order, {names} for RGB: the codec's decoder swaps them"
        yield _broken("colour-channels", what, "restore the VAE's weights, or train it anew in a new --out")
        return
    rivals = f"PSNR {kept.psnr:.1f} dB, the mean picture {kept.mean_picture:.1f}, averages of blocks {kept.blocks:.1f}"
    gap = kept.blocks - kept.mean_picture
    if kept.explained < LEAST_EXPLAINED or kept.psnr - kept.mean_picture < LEAST_OF_BLOCKS * min(gap, 12.0):
        cause = "the VAE, trained elsewhere, does not know such pictures" if pretrained else "the VAE is hardly trained"
        yield Finding("undertrained", "refuse", False, f"{cause} ({rivals})", remedy)
    elif kept.psnr < min(kept.blocks, 30.0) or kept.explained < FAIRLY_EXPLAINED:
        coarse = f"reconstructions lose {1 - kept.explained:.0%} of what tells pictures apart ({rivals})"
        yield Finding("undertrained", "warn", False, coarse, remedy)
    ratios = {name: ratio for name, ratio in (("contrast", kept.contrast), ("colour", kept.colour)) if ratio == ratio}
    weakest = min(ratios, key=ratios.__getitem__, default="")
    if weakest and ratios[weakest] < GREY_WARNED:
        level: Level = "refuse" if ratios[weakest] < GREY_REFUSED else "warn"
        what = f"reconstructions come out grey, with {ratios[weakest]:.0%} of the originals' {weakest}"
        yield Finding("grey", level, False, what, remedy)
    if kept is held_out and trained.psnr - kept.psnr > MEMORISED and not pretrained:
        what = f"the VAE knows its training pictures by heart ({trained.psnr:.1f} dB, held-out {kept.psnr:.1f})"
        yield Finding("memorised", "warn", False, what, KNOWS_MORE)


def best_order(distances: Tensor) -> tuple[int, ...] | None:
    return best_order_of(distances.tolist())


def best_order_of(distances: list[list[float]]) -> tuple[int, ...] | None:
    """Of row i the nearest column, where that is a permutation and not the identity; else None."""
    order = tuple(min(range(len(row)), key=row.__getitem__) for row in distances)
    return order if sorted(order) == list(range(len(order))) and order != tuple(range(len(order))) else None


def _distance(distances: Tensor, order: tuple[int, ...]) -> float:
    return max(float(distances[i, j]) for i, j in enumerate(order))


def _error(squares: Tensor, order: tuple[int, ...]) -> float:
    return sum(float(squares[i, j]) for i, j in enumerate(order))


def _scale_error(channel: Channel) -> float:
    """How far a channel is from mean 0 and std 1, beyond what the sample's size explains."""
    mean = abs(channel.mean) - SURE * channel.mean_error
    return max(mean, abs(math.log(channel.std)) - SURE * channel.std_error / channel.std, 0.0)


def _constant(channels: tuple[Channel, ...]) -> list[int]:
    """Channels without any spread, whose scale means nothing."""
    widest = max((channel.raw_std for channel in channels), default=0.0)
    return [c for c, channel in enumerate(channels) if channel.raw_std < DEAD_RANGE * widest]


def _alike(a: LatentStatistics, b: LatentStatistics) -> bool:
    if len(a.mean) != len(b.mean):
        return False
    near = (abs(x - y) <= 1e-4 * s and abs(s - t) <= 1e-4 * s for x, y, s, t in zip(a.mean, b.mean, a.std, b.std))
    return all(near)


def _broken(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, "refuse", True, what, remedy)


def _named(channels: list[int]) -> str:
    numbers = ", ".join(str(c) for c in channels)
    return f"latent channel {numbers}" if len(channels) == 1 else f"latent channels {numbers}"


def _is(channels: list[int]) -> str:
    return "is" if len(channels) == 1 else "are"
