"""kill -9 the encoding of pictures at random instants; the finished cache must be that of an undisturbed run.

    python benchmarks/cache_faults.py [--kills 50] [--pictures 10000] [--seed 0]

Encodes small random pictures with a small VAE, once undisturbed, then in processes that are killed at random moments
and started again. Prints one JSON object; exit 1 if a file differs by name or bytes, or a finished shard was encoded
again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from calotype.core.shards import ShardStore
from calotype.images.dataset import PictureSet
from calotype.latents import ConvVAE, VAEConfig, encode_pictures

LEAD = 0.4  # of a shard's time, by which kills may come after it: most fall into one, some between two


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = trial(Path(folder), options.kills, options.pictures, random.Random(options.seed))
    print(json.dumps(result, indent=2))
    return 0 if result["identical"] and not result["encoded_again"] else 1


def trial(folder: Path, kills: int, pictures: int, chance: random.Random) -> dict[str, Any]:
    """The reference, the killed encoding, and what they have in common."""
    whole, killed = folder / "whole", folder / "killed"
    whole_seconds, written = attempt(whole, pictures, None)
    seconds, shards = whole_seconds or 0.0, len(written)
    blows, again, writes, instants = 0, list[str](), 0, list[float]()
    while blows < kills:
        there = set(files(killed))
        delay = chance.uniform(0, (1 + LEAD) * seconds / shards)
        lived, written = attempt(killed, pictures, delay)
        again += [name for name in written if any(path.endswith(name) for path in there)]
        writes += len(written)
        if lived is None:
            blows += 1
            instants.append(round(delay, 3))
        elif blows < kills:  # it came to its end: the rest of the kills falls on one that begins anew
            if files(killed) != files(whole):
                break
            for path in sorted(killed.rglob("*.safetensors"))[:: chance.randint(1, 3)]:
                path.unlink()
    _, written = attempt(killed, pictures, None)
    expected, found = files(whole), files(killed)
    return {
        "kills": blows,
        "pictures": pictures,
        "shards": shards,
        "undisturbed_seconds": round(seconds, 2),
        "kill_instants_seconds": instants,
        "shards_written": writes + len(written),
        "encoded_again": again,
        "differing": sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name)),
        "identical": expected == found and shards > 0,
    }


def attempt(folder: Path, pictures: int, delay: float | None) -> tuple[float | None, list[str]]:
    """One process, killed `delay` seconds after it began: the seconds it took, None if killed; the shards written.

    It is forked, so that nothing is imported fifty times; no thread runs yet where that happens.
    """
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            encode(folder, pictures, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading) as lines:
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        written = lines.read().split()
    status = os.waitpid(child, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"the encoding could not go on: status {status}")
    return (time.monotonic() - started if status == 0 else None), written


def files(folder: Path) -> dict[str, bytes]:
    """Everything in the cache, whatever it is."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def encode(folder: Path, count: int, told: int) -> None:
    """What is killed: the encode stage of a run; every shard that was written is told."""
    torch.manual_seed(0)
    vae = ConvVAE(VAEConfig(channels=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1))).eval()
    names, nothing = [str(i) for i in range(count)], list[str | None]([None]) * count
    pictures = PictureSet(
        pixels=torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8),
        names=names,
        captions=nothing,
        labels=nothing,
        held_out=torch.arange(count) % 20 == 0,
        refused=0,
        source="noise",
        attribution="",
        licence="",
        digests=names,
        crops=[0] * count,
        transform="{}",
    )
    add = ShardStore.add

    def add_and_tell(*asked: Any) -> Path:
        path = add(*asked)
        os.write(told, f"{path.name}\n".encode())
        return path

    ShardStore.add = add_and_tell  # type: ignore[method-assign]
    encode_pictures(vae, pictures, folder, mirrored=True)


if __name__ == "__main__":
    sys.exit(main())
