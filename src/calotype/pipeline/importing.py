"""A folder that diffusers saved, unconditional UNet2DModel and AutoencoderKL, as a bundle of ours."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json
from calotype.latents import Codec, LatentStatistics, PretrainedVAE, load_pretrained_vae
from calotype.network.unet import UNet, count_parameters
from calotype.pipeline.bundle import assemble, save_bundle
from calotype.pipeline.export.renaming import restored
from calotype.pipeline.export.unet import unet_names
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.stock_settings import latent_side, read_scheduler, unet_config
from calotype.recipes.recipe import Recipe, VAESection
from calotype.training.denoiser_objective import DenoiserLossConfig


def import_diffusers(folder: Path, out: Path) -> Pipeline:
    """Read unet/, vae/ (or vqvae/) and scheduler/, write the bundle `out`, return the model on the CPU.

    Latents are standardised by the VAE's scaling_factor and shift_factor, or latents_mean and latents_std; thresholding
    clamps at 2.81, the 99.5 % quantile of |N(0, 1)|. The process and the prediction come from the scheduler; its
    spacing of timesteps does not: a bundle is sampled on calotype's own grid. UserError names what calotype does not
    compute, what is missing, and an `out` that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and is not empty", "give a new folder")
    theirs = _load_unet(_part(folder, "unet"))
    config = unet_config(theirs.config)
    vae = load_pretrained_vae(_part(folder, "vae", "vqvae"))
    vae.config = vae.config.model_copy(update={"source": folder.resolve().name})
    process, parameterization, sampling, bound = read_scheduler(_scheduler(folder))
    side = latent_side(theirs.config)
    if config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"{folder}: the U-Net takes {config.in_channels} channels, the VAE gives {vae.config.latent_channels}",
            "give the folder of one pipeline",
        )
    network = UNet(config)
    fill(network, theirs)
    size = side * vae.config.downsampling
    recipe = Recipe(
        name="imported",
        size=size,
        condition="none",
        vae=VAESection(network=vae.config),
        process=process,
        network=config,
        loss=DenoiserLossConfig(parameterization=parameterization),
        sampling=sampling,
    )
    codec = Codec(vae, _statistics(vae, bound), size)
    model = assemble(recipe, codec, network, [], _facts(folder, vae, network), torch.device("cpu"))
    save_bundle(model, out)
    return model


def fill(network: UNet, theirs: Any) -> None:
    """The weights of a UNet2DModel in our U-Net of its `unet_config`; what would tell it a condition stays zero."""
    weights = restored(theirs.state_dict(), unet_names(network.config))
    if not theirs.config.flip_sin_to_cos:  # then sines stand before cosines
        sines, cosines = weights["time_mlp.0.weight"].chunk(2, dim=1)
        weights["time_mlp.0.weight"] = torch.cat([cosines, sines], dim=1)
    own = network.state_dict()
    unused = {name: torch.zeros_like(own[name]) for name in own if name.startswith(("condition.", "from_condition."))}
    network.load_state_dict(weights | unused)


def _statistics(vae: PretrainedVAE, bound: float) -> LatentStatistics:
    """x0 = (z_raw - shift_factor) scaling_factor, or (z_raw - latents_mean) scaling_factor / latents_std."""
    settings, channels = vae.config.settings, vae.config.latent_channels
    scale = settings.get("scaling_factor") or 1.0
    if settings.get("latents_mean") and settings.get("latents_std"):
        mean, std = settings["latents_mean"], settings["latents_std"]
    else:
        mean, std = [settings.get("shift_factor") or 0.0] * channels, [1.0] * channels
    return LatentStatistics(mean=tuple(mean), std=tuple(value / scale for value in std), bound=bound)


def _facts(folder: Path, vae: PretrainedVAE, network: UNet) -> dict[str, Any]:
    name = folder.resolve().name
    return {
        "name": name,
        "imported_from": f"the diffusers folder '{name}'",
        "data": {"source": f"not said: imported from the diffusers folder '{name}'"},
        "captioned": False,
        "vae_parameters": count_parameters(vae),
        "denoiser_parameters": count_parameters(network),
        "vae_source": vae.config.source,
        "vae_sha256": vae.fingerprint,
    }


def _part(folder: Path, *names: str) -> Path:
    """The first of these folders that is there."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give one that diffusers' save_pretrained wrote")
    found = next((folder / name for name in names if (folder / name / "config.json").is_file()), None)
    if found is None:
        raise UserError(
            f"{folder} has no {' or '.join(f'{name}/config.json' for name in names)}",
            "only latent models come in: a folder with unet/, vae/ and scheduler/",
        )
    return found


def _load_unet(folder: Path) -> Any:
    """The UNet2DModel of `folder`, read by diffusers from safetensors."""
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise UserError("importing needs package 'diffusers'", "pip install 'calotype[diffusers]'") from None
    kind = read_json(folder / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise UserError(f"{folder} holds a {kind}", "only an unconditional UNet2DModel comes in")
    try:
        return UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False, use_safetensors=True).float().eval()
    except Exception as error:  # diffusers, safetensors and the hub's client each have their own
        raise CorruptFileError(f"{folder} cannot be read ({shorten(str(error), 120)})", "restore it") from None


def _scheduler(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "scheduler" / "scheduler_config.json"))
