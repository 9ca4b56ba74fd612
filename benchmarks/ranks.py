"""Two processes on this machine against one, at the same global batch: seconds of a training step, as JSON.

python benchmarks/ranks.py [--size 64] [--steps 6] [--rounds 3]

The default VAE and denoiser, on drawn-up pictures and latents. Every process computes with one thread, and one process
alone also with two; kinds take turns, so that whatever else the machine does meets them alike.
"""

from __future__ import annotations

import os

# Threads that wait must not burn the core that another process needs; read when OpenMP starts, hence before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from calotype.core import distributed
from calotype.core.random import batch_ids, normal
from calotype.latents import LatentSet, LatentStatistics, build_vae
from calotype.network import Condition, UNet
from calotype.recipes import get_recipe
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.engine import Engine
from calotype.training.vae_objective import VAEObjective

PICTURES = 256
KINDS = {  # processes, threads of each
    "one": (1, 1),
    "one_two_threads": (1, 2),
    "two": (2, 1),
    "two_fsdp": (2, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--steps", type=int, default=6, help="steps that are timed, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options)
        return
    rounds = [{kind: _measured(kind, options) for kind in KINDS} for _ in range(options.rounds)]
    found: dict[str, Any] = {"size": options.size, "steps": options.steps, "rounds": options.rounds}
    for stage in ("vae", "denoiser"):
        seconds = {kind: statistics.median(one[kind].get(stage, float("nan")) for one in rounds) for kind in KINDS}
        found[stage] = {
            "seconds_per_step": {kind: round(value, 3) for kind, value in seconds.items() if value == value},
            "two_to_one": round(seconds["two"] / seconds["one"], 3),
            "two_to_two_threads": round(seconds["two"] / seconds["one_two_threads"], 3),
        }
    print(json.dumps(found, indent=2))


def _measured(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds a step of each stage, as rank 0 sees it."""
    processes, threads = KINDS[kind]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--child", kind, "--size", str(options.size), "--steps", str(options.steps)]
    group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **group}
    children = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    said = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        sys.exit(f"{kind}: a process failed")
    seconds: dict[str, float] = json.loads(said[0])
    return seconds


def _child(options: argparse.Namespace) -> None:
    recipe = get_recipe("calotype", options.size)
    with distributed.joined(torch.device("cpu")) as device:
        ids = torch.arange(PICTURES)
        images = normal(0, "pictures", 0, ids, (3, options.size, options.size)).clamp(-1, 1)
        vae = build_vae(recipe.vae.network)
        side = options.size // recipe.vae.network.downsampling
        mean = normal(0, "latents", 0, ids, (recipe.vae.network.latent_channels, side, side))[None]
        channels = mean.shape[2]
        statistics_ = LatentStatistics(mean=(0.0,) * channels, std=(1.0,) * channels, bound=3.0)
        latents = LatentSet.from_tensors(mean, torch.full_like(mean, 0.1), statistics_)
        nothing = Condition(torch.ones(PICTURES, dtype=torch.bool))
        network, process = UNet(recipe.network), recipe.process.build()
        objectives = [
            (VAEObjective(vae, recipe.vae.loss, lambda i: images[i], ids, ids[:64], 0, device), recipe.vae.training),
            (
                DenoiserObjective(
                    network, process, recipe.loss, latents, lambda i: nothing[i.cpu()], ids, ids[:64], 0, device
                ),
                recipe.training,
            ),
        ]
        found = {}
        for objective, config in objectives:
            if options.child == "two_fsdp":
                if config.optimizer.name == "muon":
                    continue  # which is not spread
                config = config.model_copy(update={"sharding": "fsdp"})
            found[objective.stage] = _seconds(Engine(objective, config), options.steps)
        if distributed.rank() == 0:
            print(json.dumps(found))


def _seconds(engine: Engine, steps: int) -> float:
    """Of one step, after two that are not counted; the median."""
    times = []
    engine.set_rate(0.1)
    for step in range(steps + 2):
        distributed.barrier()
        began = time.perf_counter()
        engine.compute(step, batch_ids(0, step, engine.config.batch_size, PICTURES))
        engine.apply(step)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
