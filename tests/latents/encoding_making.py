"""Small sets of pictures and a small VAE, for what fills and reads the cache of latents."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import torch

from calotype.images.dataset import PictureSet
from calotype.latents import ConvVAE, VAEConfig

TINY = VAEConfig(channels=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1))


def tiny_vae(seed: int = 0) -> ConvVAE:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvVAE(TINY).eval()


def picture_set(*numbers: int, held_out: int = 0, size: int = 16) -> PictureSet:
    """Pictures by number: equal numbers are equal pictures. The last `held_out` are held out."""
    pixels = [
        torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        for number in numbers
    ]
    return PictureSet(
        pixels=torch.stack(pixels),
        names=[f"{number}.png" for number in numbers],
        captions=[None] * len(numbers),
        labels=[None] * len(numbers),
        held_out=torch.arange(len(numbers)) >= len(numbers) - held_out,
        refused=0,
        source="drawn",
        attribution="",
        licence="",
        digests=[sha256(str(number).encode()).hexdigest() for number in numbers],
        crops=[0] * len(numbers),
        transform=f'{{"size": {size}}}',
    )


def shards(folder: Path) -> dict[str, bytes]:
    """What lies in the shards of a cache."""
    return {path.name: path.read_bytes() for path in folder.glob("*/*.safetensors")}
