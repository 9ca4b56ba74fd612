"""What the cache of latents costs a picture, from a thousand to a million; and what ten more pictures cost.

    python benchmarks/latent_cache.py [--counts 1000,10000,100000,1000000] [--side 8] [--seconds 3] [--added 10000]

Writes synthetic posteriors (4 x side x side) into shards in a temporary folder, and for each count, in a process of its
own: verifies them, opens them on disk, and reads random batches of 256 (posterior: mean and std; draw: a fresh sample).
Then encodes `--added` random pictures of 64 pixels with the default VAE, ten more, and the same again. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from calotype.core.shards import Keys, ShardStore
from calotype.latents import ConvVAE, LatentSet, VAEConfig, encode_pictures
from calotype.latents.cache import VALUES, StoredRows, measure
from calotype.latents.encoding import SHARD

BATCH = 256
TIMES = 5  # that ten are added, one after another


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000,100000,1000000")
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--added", type=int, default=10_000, help="0 leaves the encoding out")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(read(options.folder, int(options.counts), options.seconds)))
        return
    counts, result = (
        [int(count) for count in options.counts.split(",")],
        {"side": options.side, "cores": os.cpu_count()},
    )
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            result[str(count)] = {
                "write_seconds": write(Path(folder) / str(count), count, options.side),
                **in_a_process_of_its_own(Path(folder) / str(count), count, options.seconds),
            }
        if options.added:
            result["added"] = add(Path(folder) / "added", options.added)
    print(json.dumps(result, indent=2))


def keys_of(count: int) -> Keys:
    """Keys as random as hashes."""
    return np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)


def write(folder: Path, count: int, side: int) -> float:
    """Shards of `count` posteriors; the values repeat, which nothing here looks at."""
    started, keys = time.monotonic(), keys_of(count)
    values = torch.randn(SHARD, 1, 2, 4, side, side).half()
    for start in range(0, count, SHARD):
        part = keys[start : start + SHARD]
        ShardStore(folder).add(part, {VALUES: values[: len(part)]})
    return round(time.monotonic() - started, 2)


def in_a_process_of_its_own(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """`read` where nothing else has been in memory."""
    words = [sys.executable, __file__, "--folder", str(folder), "--counts", str(count), "--seconds", str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def read(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Open and read at random, on one thread."""
    torch.set_num_threads(1)
    before, store, keys = resident(), ShardStore(folder), keys_of(count)
    times = [time.monotonic()]
    damaged = store.verify()
    times.append(time.monotonic())
    rows = StoredRows(store.locate(keys))
    times.append(time.monotonic())
    del keys
    opened = resident()
    statistics = measure(rows, torch.arange(min(count, 100_000)))
    latents, most = LatentSet(rows, statistics), 0
    rates = {}
    for name in ("posterior", "draw"):
        noise = torch.randn(BATCH, *latents.shape)
        ids = torch.randint(0, count, (4096, BATCH))
        started, worked, done = time.monotonic(), time.process_time(), 0
        while time.monotonic() - started < seconds:
            chosen = ids[done % len(ids)]
            latents.posterior(chosen) if name == "posterior" else latents.draw(chosen, None, noise)
            done += 1
            if done % 256 == 0:
                most = max(most, resident())
        rates[f"{name}s_per_second"] = round(done * BATCH / (time.monotonic() - started))
        rates[f"{name}s_per_cpu_second"] = round(done * BATCH / (time.process_time() - worked))
    return {
        "on_disk_mib": round(sum(path.stat().st_size for path in store.paths) / 2**20, 1),
        "damaged": len(damaged),
        "verify_seconds": round(times[1] - times[0], 3),
        "open_seconds": round(times[2] - times[1], 3),
        "open_resident_mib": round((opened - before) / 2**20),
        "most_resident_mib": round((max(most, resident()) - before) / 2**20),
        **rates,
    }


def resident() -> int:
    """Bytes of main memory that this process takes, mapped files and all."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def add(folder: Path, count: int) -> dict[str, Any]:
    """Seconds of the encode stage for all pictures; medians for ten more, and for none."""
    from calotype.images.dataset import PictureSet

    torch.manual_seed(0)
    vae, pixels = ConvVAE(VAEConfig()).eval(), torch.randint(0, 256, (count + 10 * TIMES, 3, 64, 64), dtype=torch.uint8)

    def some(number: int) -> PictureSet:
        names = [str(i) for i in range(number)]
        nothing: list[str | None] = [None] * number
        held_out = torch.arange(number) % 20 == 0
        return PictureSet(
            pixels=pixels[:number],
            names=names,
            captions=nothing,
            labels=nothing,
            held_out=held_out,
            refused=0,
            source="noise",
            attribution="",
            licence="",
            digests=names,
            crops=[0] * number,
            transform="{}",
        )

    def seconds(number: int) -> float:
        pictures = some(number)
        assert len(pictures.keys) == number
        started = time.monotonic()
        encode_pictures(vae, pictures, folder, mirrored=True)
        return time.monotonic() - started

    first = seconds(count)
    more = [seconds(count + 10 * times) for times in range(1, TIMES + 1)]
    again = [seconds(count + 10 * TIMES) for _ in range(TIMES)]
    measured = {"first": first, "ten_more": median(more), "again": median(again)}
    told: dict[str, Any] = {name: round(value, 3) for name, value in measured.items()}
    return {"pictures": count, **told, "ten_more_over_first": round(median(more) / first, 4)}


if __name__ == "__main__":
    main()
