"""Which score sees which damage? Real pictures are damaged, each way at three strengths, and scored as samples are.

    python benchmarks/damage.py DATA [--size 64] [--count 256] [--seed 0] [--extractor NAME] [--json FILE]

DATA is a run's folder or what `calotype train` takes. "None" are real pictures, scored as a perfect model's would be;
then the same blurred, noisy, tinted, without some of the classes (without some groups of pictures that look alike,
where there are no classes), and partly replaced by training pictures. Prints a Markdown table: a score that moved,
which means that the intervals do not meet that of "none", is bold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from calotype.core.errors import UserError
from calotype.core.files import write_json
from calotype.core.progress import Silent
from calotype.evaluation import (
    Estimate,
    estimate_frechet,
    estimate_kernel_distance,
    memorization,
    own_concept,
    support,
)
from calotype.features import load_extractor
from calotype.images.dataset import PictureSet, load_prepared, prepare
from calotype.images.pixels import to_float
from calotype.images.source import open_source

Features = Callable[[Tensor], Tensor]
Scores = dict[str, Estimate]

STRENGTHS: dict[str, tuple[float, float, float]] = {
    "blur": (0.5, 1.0, 2.0),  # standard deviation in pixels
    "noise": (0.1, 0.2, 0.4),  # standard deviation, of pictures in [-1, 1]
    "tint": (0.1, 0.2, 0.4),  # added to red, taken from blue
    "modes dropped": (0.25, 0.5, 0.75),  # share of the groups
    "memorised": (0.1, 0.3, 1.0),  # share of the samples
}
GROUPS = 8


@dataclass(frozen=True)
class Sets:
    """Images of one set in four parts: `fresh` ones play the samples, `spare` ones stand in for groups dropped.

    `groups` and `spare_groups` number the groups of both.
    """

    fresh: Tensor
    spare: Tensor
    held_out: Tensor
    training: Tensor
    groups: Tensor
    spare_groups: Tensor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=256, help="samples, and held-out pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    try:
        extractor = load_extractor(options.extractor)
        with TemporaryDirectory() as folder:
            pictures = load_prepared(Path(options.data) / "data")
            if pictures is None:
                pictures = prepare(open_source(options.data, size=options.size), options.size, Path(folder), Silent())
            sets = divide(pictures, extractor, options.count, options.seed)
        print(f"{pictures.source}, {options.count} pictures a side, {extractor.name}, seed {options.seed}\n")
        table = measure(sets, extractor, options.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_json(options.json, {name: {key: e.plain() for key, e in row.items()} for name, row in table.items()})
    print(markdown(table))
    return 0


def divide(pictures: PictureSet, features: Features, count: int, seed: int) -> Sets:
    """Four parts at random: count, all that is left, count, twice count; groups are classes or clusters."""
    if len(pictures) < 6 * count:
        raise UserError(f"{len(pictures)} pictures are too few", f"give at least {6 * count}, or a smaller --count")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)[: 12 * count]
    fresh, held_out, training, spare = order.tensor_split([count, 2 * count, 4 * count])
    fresh_images, spare_images = to_float(pictures.pixels[fresh]), to_float(pictures.pixels[spare])
    if len(pictures.classes) > 1:
        labels = torch.tensor([-1 if label is None else pictures.classes.index(label) for label in pictures.labels])
        groups, spare_groups = labels[fresh], labels[spare]
    else:
        both = clusters(features(torch.cat([fresh_images, spare_images])), GROUPS, generator)
        groups, spare_groups = both.split([len(fresh), len(spare)])
    return Sets(
        fresh=fresh_images,
        spare=spare_images,
        held_out=to_float(pictures.pixels[held_out]),
        training=to_float(pictures.pixels[training]),
        groups=groups,
        spare_groups=spare_groups,
    )


def clusters(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Group of each picture by Lloyd's algorithm, (n,)."""
    centres = features[torch.randperm(len(features), generator=generator)[:count]]
    for _ in range(20):
        nearest = torch.cdist(features, centres).argmin(dim=1)
        centres = torch.stack(
            [features[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)]
        )
    return nearest


def measure(sets: Sets, features: Features, seed: int = 0) -> dict[str, Scores]:
    """Scores of the fresh pictures as they are, and of every damage at every strength."""
    held_out, training, fresh = (features(images) for images in (sets.held_out, sets.training, sets.fresh))
    damaged = {"none": sets.fresh}
    damaged |= {f"{name} {s:g}": damage(sets, name, s, seed) for name, three in STRENGTHS.items() for s in three}
    table = {}
    for name, samples in damaged.items():
        table[name] = _scores(samples, features(samples), sets, held_out, training, fresh)
        print(name, file=sys.stderr)
    return table


def _scores(samples: Tensor, features: Tensor, sets: Sets, held_out: Tensor, training: Tensor, fresh: Tensor) -> Scores:
    frechet, ball = estimate_frechet(features, held_out), support(features, held_out)
    by_pixels = memorization(samples, sets.training, sets.held_out)
    by_features = memorization(features, training, held_out)
    return {
        "kernel": estimate_kernel_distance(features, held_out),
        "Fréchet": frechet.at_count,
        "Fréchet ∞": frechet.at_infinity,
        "precision": ball.precision,
        "recall": ball.recall,
        "density": ball.density,
        "coverage": ball.coverage,
        "own picture": own_concept(features, torch.arange(len(features)), fresh).top1,
        "copies (pixels)": by_pixels.copies,
        "nearer (pixels)": by_pixels.nearer,
        "copies (features)": by_features.copies,
    }


def damage(sets: Sets, name: str, strength: float, seed: int) -> Tensor:
    """The fresh pictures, damaged; a stronger damage of one seed is more of the same."""
    generator = torch.Generator().manual_seed(seed)
    images = sets.fresh
    if name == "blur":
        return _blurred(images, strength)
    if name == "noise":
        return (images + strength * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    if name == "tint":
        return (images + strength * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)).clamp(-1, 1)
    if name == "memorised":
        replaced = torch.randperm(len(images), generator=generator)[: round(strength * len(images))]
        originals = torch.randperm(len(sets.training), generator=generator)[: len(replaced)]
        return images.index_copy(0, replaced, sets.training[originals])
    present = torch.cat([sets.groups, sets.spare_groups]).unique()
    order = present[torch.randperm(len(present), generator=generator)]
    kept = order[: max(1, round((1 - strength) * len(order)))]
    gone = (~torch.isin(sets.groups, kept)).nonzero().flatten()
    others = torch.isin(sets.spare_groups, kept).nonzero().flatten()
    if len(others) == 0:
        raise UserError("a group of pictures has nothing to stand in for it", "give more pictures")
    others = others[torch.randperm(len(others), generator=generator)]
    return images.index_copy(0, gone, sets.spare[others.repeat(len(gone) // len(others) + 1)[: len(gone)]])


def _blurred(images: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).view(1, 1, 1, -1).repeat(3, 1, 1, 1)
    padded = pad(images, (reach,) * 4, mode="replicate")
    return conv2d(conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)


def moved(score: Estimate, undamaged: Estimate) -> bool:
    """Whether the intervals do not meet."""
    return score.low > undamaged.high or score.high < undamaged.low


def markdown(table: dict[str, Scores]) -> str:
    """A row a damage, a column a score; bold where it moved."""
    undamaged = table["none"]
    lines = ["| damage | " + " | ".join(undamaged) + " |", "|---|" + "---|" * len(undamaged)]
    for name, scores in table.items():
        cells = [f"**{e.value:.3g}**" if moved(e, undamaged[key]) else f"{e.value:.3g}" for key, e in scores.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
