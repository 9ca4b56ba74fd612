"""Tiny diffusers VAEs, made and saved by the tests, and what diffusers itself says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.latents.pretrained import PretrainedVAE, PretrainedVAEConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


def make(folder: Path, **settings: Any) -> Path:
    """Save a tiny AutoencoderKL, f4 with 3 latent channels unless told; all weights random, so that each one counts."""
    from diffusers import AutoencoderKL

    levels = len(settings.setdefault("block_out_channels", (4, 8, 8)))
    settings = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": 3,
        "norm_num_groups": 2,
        "scaling_factor": 0.5,
        "shift_factor": 0.25,
        **settings,
    }
    _randomised(AutoencoderKL(**settings)).save_pretrained(folder)
    return folder


def make_tiny(folder: Path, **settings: Any) -> Path:
    """Save a tiny AutoencoderTiny, f4 with 3 latent channels unless told; all weights random."""
    from diffusers import AutoencoderTiny

    settings = {
        "encoder_block_out_channels": (4, 4, 4),
        "decoder_block_out_channels": (4, 4, 4),
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1, 1),
        "latent_channels": 3,
        **settings,
    }
    _randomised(AutoencoderTiny(**settings)).save_pretrained(folder)
    return folder


def _randomised(autoencoder: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for parameter in autoencoder.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return autoencoder


def rebuilt(description: dict[str, Any]) -> PretrainedVAE:
    """The empty module that a bundle's recipe describes."""
    return PretrainedVAE(PretrainedVAEConfig.parse(description, "pretrained VAE"))


def theirs(folder: Path) -> Any:
    """What diffusers itself reads from the folder: the independent reference."""
    import diffusers

    family = getattr(diffusers, json.loads((folder / "config.json").read_text())["_class_name"])
    return family.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)


def pictures(number: int = 2, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def edit(folder: Path, **changes: Any) -> None:
    """Change settings in the folder's config.json; None takes one out."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


@torch.no_grad()
def assert_same(vae: PretrainedVAE, autoencoder: Any) -> None:
    """Mean, log-variance and decoded picture agree with diffusers' raw ones: no scaling_factor anywhere."""
    images = pictures()
    posterior = autoencoder.encode(images).latent_dist
    mean, logvar = vae.encode(images)
    for ours, others in (
        (mean, posterior.mean),
        (logvar, posterior.logvar),
        (vae.decode(mean), autoencoder.decode(mean).sample),
    ):
        torch.testing.assert_close(ours, others, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mean, logvar)
