"""Speed and memory of the default 64 px network beside diffusers' UNet2DModel, both in this run. Prints JSON.

    python benchmarks/network_speed.py [--threads 2] [--rounds 9] [--set channels=[64,128]]

Both networks see batches of 64 latents (4, 8, 8) and take whole training steps: forward, backward, fused AdamW. The
rounds alternate, so that whatever else the machine does meets both; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os

# Threads that wait must not burn the core that the other one needs; read when OpenMP starts, hence before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from calotype.core.errors import UserError
from calotype.core.types import TextEmbedding
from calotype.latents.vae import ConvVAE, VAEConfig
from calotype.network import Condition, NetworkDenoiser, guided
from calotype.network.unet import UNet
from calotype.process import VariancePreserving
from calotype.recipes import get_recipe
from calotype.sampling import dpmpp_2m_step, sample, timestep_grid

LATENT_SHAPE = (4, 8, 8)
TEXT_DIM = 384
BATCH_SIZE = 64
NUM_PICTURES = 16
NUM_STEPS = 20
GUIDANCE_SCALE = 3.0
# A round takes this many training steps, so that it is long against the clock and short against the machine's moods.
STEPS_PER_ROUND = 4
PEAKS = ("nothing", "ours", "unet2d", "sampling")


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        print(json.dumps(_peak(options) if options.peak else measure(options), indent=2))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    # Before the rest, while this process is small: a child's peak counts from its parent's size.
    peaks = _peaks(options)
    return {
        "torch": torch.__version__,
        "threads": options.threads,
        "networks": {"ours": _facts(_ours(options)), "unet2d": _facts(_theirs())},
        "training": _training(options),
        "sampling": _sampling(options),
        "peak_memory_mb": peaks,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change our network's config")
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _ours(options: argparse.Namespace) -> UNet:
    shape = get_recipe("calotype", 64).network.model_copy(update={"text_dim": TEXT_DIM})
    return UNet(shape.with_overrides(options.set))


def _theirs() -> nn.Module:
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise UserError("the comparison needs package 'diffusers'", "pip install 'calotype[bench]'") from None
    return UNet2DModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(64, 128, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )


def _facts(network: nn.Module) -> dict[str, Any]:
    return {"class": type(network).__name__, "parameters": sum(p.numel() for p in network.parameters())}


def _condition(count: int) -> Condition:
    """Text of ordinary size: pooled vectors and eight tokens a caption."""
    tokens = torch.randn(count, 8, TEXT_DIM)
    text = TextEmbedding(tokens.mean(dim=1), tokens, torch.ones(count, 8, dtype=torch.bool))
    return Condition(torch.zeros(count, dtype=torch.bool), text=text)


def _training_step(network: nn.Module, predict: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """One whole training step on a fixed batch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    x_t, target = torch.randn(BATCH_SIZE, *LATENT_SHAPE), torch.randn(BATCH_SIZE, *LATENT_SHAPE)
    time_fed = torch.randint(0, 1000, (BATCH_SIZE,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        mse_loss(predict(x_t, time_fed), target).backward()
        optimizer.step()

    return step


def _our_step(options: argparse.Namespace) -> Callable[[], None]:
    network, cond = _ours(options).train(), _condition(BATCH_SIZE)
    return _training_step(network, lambda x_t, t: network(x_t, t.float(), cond))


def _their_step() -> Callable[[], None]:
    network = _theirs().train()
    return _training_step(network, lambda x_t, t: network(x_t, t).sample)


def _training(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures per second of both, alternating."""
    ours, theirs = _our_step(options), _their_step()
    for warm_up in (ours, theirs):
        _seconds(warm_up, 2)
    rounds = [(_seconds(ours, STEPS_PER_ROUND), _seconds(theirs, STEPS_PER_ROUND)) for _ in range(options.rounds)]
    ratios = sorted(slow / fast for fast, slow in rounds)
    pictures = BATCH_SIZE * STEPS_PER_ROUND
    return {
        "batch_size": BATCH_SIZE,
        "rounds": options.rounds,
        "ours_pictures_per_second": round(pictures / statistics.median(fast for fast, _ in rounds), 1),
        "unet2d_pictures_per_second": round(pictures / statistics.median(slow for _, slow in rounds), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def _sampler(options: argparse.Namespace) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Drawing 16 latents in 20 guided steps, and decoding 16 latents."""
    process = VariancePreserving.cosine(num_train_steps=1000)
    denoiser = guided(NetworkDenoiser(_ours(options).eval(), process, "v"), scale=GUIDANCE_SCALE)
    cond, noise = _condition(NUM_PICTURES), torch.randn(NUM_PICTURES, *LATENT_SHAPE)
    grid = timestep_grid(process, num_steps=NUM_STEPS, kind="trailing")
    x_start = process.prior((NUM_PICTURES, *LATENT_SHAPE), noise)
    vae = ConvVAE(VAEConfig()).eval()
    return (
        lambda: sample(denoiser, process, x_start, grid, step=dpmpp_2m_step, cond=cond),
        lambda: vae.decode(noise),
    )


@torch.no_grad()
def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds for 16 pictures, beside one forward pass of UNet2DModel on 16 latents."""
    draw, decode = _sampler(options)
    network, x_t, t = _theirs().eval(), torch.randn(NUM_PICTURES, *LATENT_SHAPE), torch.zeros(NUM_PICTURES)
    works: dict[str, Callable[[], Any]] = {"draw": draw, "decode": decode, "forward": lambda: network(x_t, t).sample}
    for work in works.values():
        _seconds(work, 1)
    rounds = [{name: _seconds(work, 1) for name, work in works.items()} for _ in range(options.rounds)]
    ratios = [(times["draw"] + times["decode"]) / times["forward"] for times in rounds]
    seconds = {name: round(statistics.median(times[name] for times in rounds), 4) for name in works}
    return {
        "pictures": NUM_PICTURES,
        "steps": NUM_STEPS,
        "guidance_scale": GUIDANCE_SCALE,
        "seconds_latents": seconds["draw"],
        "seconds_decoding": seconds["decode"],
        "seconds_unet2d_forward": seconds["forward"],
        "ratio_to_unet2d_forward": round(statistics.median(ratios), 2),
    }


def _peaks(options: argparse.Namespace) -> dict[str, float]:
    """Peak resident memory, each in a process of its own; 'nothing' is Python with torch and calotype imported."""
    peaks = {}
    for kind in PEAKS:
        command = [sys.executable, __file__, "--peak", kind, "--threads", str(options.threads)]
        command += [word for assignment in options.set for word in ("--set", assignment)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise UserError(
                (done.stderr.strip().splitlines() or [f"measuring {kind} failed"])[-1].removeprefix("error: ")
            )
        peaks[kind] = json.loads(done.stdout)
    return peaks


def _peak(options: argparse.Namespace) -> float:
    """MB that this process has held at most, after three rounds of one kind of work."""
    if options.peak == "sampling":
        draw, decode = _sampler(options)
        with torch.no_grad():
            _seconds(draw, 1)
            _seconds(decode, 1)
    elif options.peak != "nothing":
        _seconds(_our_step(options) if options.peak == "ours" else _their_step(), 3)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def _seconds(work: Callable[[], Any], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
