"""How often do the 95 % intervals of the scores hold the truth? Prints JSON: coverage, misses on either side, bias.

    python benchmarks/coverage.py [--simulations 2000] [--only kernel,shares,retrieval,support,frechet]

Features are drawn from Gaussians, where the kernel and Fréchet distances are known in closed form; the truth of the
other scores, and of the Fréchet distance at a finite count, is the mean over all simulations.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from calotype.evaluation import (
    Estimate,
    estimate_frechet,
    estimate_kernel_distance,
    own_concept,
    share_estimate,
    support,
)

Simulate = Callable[[torch.Generator], dict[str, Estimate]]


@dataclass(frozen=True)
class Gaussian:
    """Features with independent entries."""

    mean: Tensor
    variance: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + noise * self.variance.sqrt()


def pair(dim: int, kind: str, decay: float) -> tuple[Gaussian, Gaussian]:
    """Two laws of features; `decay`: how fast their variances fall off, as those of real features do."""
    mean = 0.5 * torch.randn(dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)
    variance = torch.arange(1, dim + 1, dtype=torch.float64) ** -decay
    first = Gaussian(mean, variance / variance.mean())
    moved = {"equal": 0.0, "near": 0.1, "far": 0.5, "wider": 0.0}[kind]
    return first, Gaussian(mean + moved * mean.sign(), first.variance * (1.5 if kind == "wider" else 1.0))


def true_kernel_distance(p: Gaussian, q: Gaussian) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y) for k = (x.y/d + 1)^3: the first three moments of x.y."""

    def mean_kernel(a: Gaussian, b: Gaussian) -> Tensor:
        dim, once = len(a.mean), a.mean @ b.mean
        stretched = a.mean.square() @ b.variance + b.mean.square() @ a.variance
        crossed = a.variance @ b.variance
        squared = once**2 + stretched + crossed
        twisted = (a.mean * b.mean) @ (a.variance * b.variance)
        cubed = once**3 + 3 * once * (stretched + crossed) + 6 * twisted
        return 1 + 3 * once / dim + 3 * squared / dim**2 + cubed / dim**3

    return float(mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q))


def true_frechet(p: Gaussian, q: Gaussian) -> float:
    return float((p.mean - q.mean).square().sum() + (p.variance.sqrt() - q.variance.sqrt()).square().sum())


def kernel(p: Gaussian, q: Gaussian, n: int, k: int, generator: torch.Generator) -> dict[str, Estimate]:
    return {"kernel": estimate_kernel_distance(p.draw(n, generator), q.draw(k, generator))}


def frechet(p: Gaussian, q: Gaussian, n: int, generator: torch.Generator) -> dict[str, Estimate]:
    found = estimate_frechet(p.draw(n, generator), q.draw(n, generator))
    return {"at_count": found.at_count, "at_infinity": found.at_infinity}


def supported(p: Gaussian, q: Gaussian, n: int, generator: torch.Generator) -> dict[str, Estimate]:
    return vars(support(p.draw(n, generator), q.draw(n, generator)))


def shares(mean: float, prompts: int, images: int, alike: float, generator: torch.Generator) -> dict[str, Estimate]:
    """A prompt's chance to be right is all or nothing with weight `alike`, else the mean."""
    settled = torch.rand(prompts, generator=generator) < alike
    fate = (torch.rand(prompts, generator=generator) < mean).double()
    chance = torch.where(settled, fate, torch.full_like(fate, mean))
    hits = torch.rand(prompts, images, generator=generator) < chance[:, None]
    return {"share": share_estimate(hits.double().mean(dim=1))}


def retrieval(noise: float, prompts: int, images: int, generator: torch.Generator) -> dict[str, Estimate]:
    """Samples lie about their own picture with a noise of their prompt and one of their own."""
    gallery = torch.randn(256, 32, generator=generator)
    own = torch.arange(prompts).repeat_interleave(images)
    shared = torch.randn(prompts, 32, generator=generator)[own]
    each = torch.randn(len(own), 32, generator=generator)
    found = own_concept(gallery[own] + noise * (shared + each) / 2**0.5, own, gallery)
    return {"top1": found.top1, "top5": found.top5}


def cases(only: list[str]) -> Iterator[tuple[dict[str, Any], Simulate, dict[str, float], float]]:
    """What is simulated: its name, the simulation, the truths known, and the share of simulations that it is worth."""
    kinds = ("equal", "near", "far", "wider")
    if "kernel" in only:
        for n, k, dim, decay, shares_of in (
            (64, 64, 16, 0.0, kinds),
            (64, 64, 64, 1.0, kinds),
            (64, 64, 256, 0.5, kinds),
            (64, 512, 64, 0.5, kinds),
            (256, 256, 64, 0.5, kinds),
            (1000, 1000, 64, 0.5, ("equal", "near")),
        ):
            for kind in shares_of:
                p, q = pair(dim, kind, decay)
                name = {"score": "kernel", "case": kind, "n": n, "k": k, "dim": dim, "decay": decay}
                yield name, partial(kernel, p, q, n, k), {"kernel": true_kernel_distance(p, q)}, 1.0
    if "shares" in only:
        for prompts in (32, 192):
            for mean in (0.03, 0.2, 0.6, 0.97):
                for images, alike in ((1, 0.0), (4, 0.1), (4, 0.6)):
                    name = {"score": "shares", "prompts": prompts, "images": images, "alike": alike}
                    yield name, partial(shares, mean, prompts, images, alike), {"share": mean}, 1.0
    if "retrieval" in only:
        for prompts, images in ((32, 1), (32, 4), (192, 4)):
            for noise in (0.8, 1.5, 3.0):
                name = {"score": "retrieval", "prompts": prompts, "images": images, "noise": noise}
                yield name, partial(retrieval, noise, prompts, images), {}, 1.0
    if "support" in only:
        for n, dim, kind in ((200, 16, "equal"), (200, 16, "far"), (200, 16, "wider"), (500, 64, "wider")):
            name = {"score": "support", "case": kind, "n": n, "dim": dim}
            yield name, partial(supported, *pair(dim, kind, 0.5), n), {}, 0.25
    if "frechet" in only:
        for n, dim in ((128, 16), (512, 64), (128, 64), (256, 256)):
            for kind in ("equal", "near", "far"):
                p, q = pair(dim, kind, 1.0)
                name = {"score": "frechet", "case": kind, "n": n, "dim": dim}
                yield name, partial(frechet, p, q, n), {"at_infinity": true_frechet(p, q)}, 0.25


def coverage(simulate: Simulate, truths: dict[str, float], simulations: int) -> dict[str, dict[str, float]]:
    """Simulate and count: of every score, how often its interval holds the truth, and where the value lies."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    found = [simulate(generator) for _ in range(simulations)]
    table = {}
    for score in found[0]:
        values = torch.tensor([one[score].value for one in found], dtype=torch.float64)
        low = torch.tensor([one[score].low for one in found], dtype=torch.float64)
        high = torch.tensor([one[score].high for one in found], dtype=torch.float64)
        truth = truths.get(score, float(values.mean()))
        above, below = float((low > truth).double().mean()), float((high < truth).double().mean())
        table[score] = {
            "truth": truth,
            "mean": float(values.mean()),
            "deviation": float(values.std()),
            "width": float((high - low).mean()),
            "coverage": 1 - above - below,
            "interval_above": above,
            "interval_below": below,
        }
    return table


def _row(case: tuple[dict[str, Any], Simulate, dict[str, float], float], simulations: int) -> list[dict[str, Any]]:
    name, simulate, truths, weight = case
    count = max(1, round(simulations * weight))
    table = coverage(simulate, truths, count)
    return [
        {**name, "of": score, "simulations": count, **{key: round(value, 5) for key, value in values.items()}}
        for score, values in table.items()
    ]


def _rare(row: dict[str, Any]) -> bool:
    """Fewer than three prompts are expected to be right, or wrong: whole numbers that small cannot be held in 95 %."""
    return "prompts" in row and min(row["truth"], 1 - row["truth"]) * row["prompts"] < 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--only", default="kernel,shares,retrieval,support,frechet")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)  # cases are computed beside each other instead
    with ThreadPoolExecutor(options.threads) as pool:
        tables = list(pool.map(partial(_row, simulations=options.simulations), cases(options.only.split(","))))
    rows = [row for table in tables for row in table]
    print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    held = [row["coverage"] for row in rows if row["score"] in ("kernel", "shares", "retrieval") and not _rare(row)]
    if held:
        print(json.dumps({"lowest": min(held), "highest": max(held), "seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
