"""Any diffusers AutoencoderKL (Rombach et al. 2022) or AutoencoderTiny as the first stage: a folder, or a hub id."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from calotype.core.config import Config
from calotype.core.errors import CorruptFileError, UserError, nearest
from calotype.core.files import read_json
from calotype.core.hub import HUB_ID
from calotype.core.tensors import load_tensors
from calotype.latents.hub import CONFIG, WEIGHTS, cached, downloaded, vae_folder

FAMILIES = ("AutoencoderKL", "AutoencoderTiny")
PIXELS_AT_ONCE = 2**18  # 16 pictures of 128 px: one map of 128 channels at full resolution is then 128 MiB
SURE = -20.0  # log-variance of an encoder that gives no variance: a deviation of 5e-5
OLD_ATTENTION = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
DERIVED = "block_out_channels"  # AutoencoderTiny writes this into its config and does not take it back


class PretrainedVAEConfig(Config):
    """What builds the module again without its folder: the diffusers class, and that class's own settings.

    `source` is the hub id, or the folder's name. diffusers' scaling_factor, shift_factor, latent_magnitude and
    latent_shift are kept and never applied: the codec measures.
    """

    family: Literal["AutoencoderKL", "AutoencoderTiny"] = "AutoencoderKL"
    source: str
    settings: dict[str, Any]

    @property
    def latent_channels(self) -> int:
        return int(self.settings["latent_channels"])

    @property
    def downsampling(self) -> int:
        """Pixels per latent position and side: every level but one halves."""
        widths = "block_out_channels" if self.family == "AutoencoderKL" else "encoder_block_out_channels"
        return int(2 ** (len(self.settings[widths]) - 1))


class PretrainedVAE(nn.Module):
    """A diffusers autoencoder with ConvVAE's methods; like it, made empty and filled by `load_state_dict`.

    An AutoencoderTiny gives a latent and no variance: its posteriors are as good as certain.
    """

    def __init__(self, config: PretrainedVAEConfig) -> None:
        super().__init__()
        self.autoencoder = _build(config)
        known = inspect.signature(type(self.autoencoder)).parameters
        chosen = {name: value for name, value in self.autoencoder.config.items() if name in known}
        self.config = config.model_copy(update={"settings": json.loads(json.dumps(chosen))})

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the weights: names, types, shapes and values, in the order of the names."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.autoencoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, 3, H, W) in [-1, 1] -> mean and logvar, each (b, c, H/f, W/f), of the raw latent.

        A few pictures at a time, so that memory stays bounded. ValueError for sides that f does not divide.
        """
        height, width = images.shape[-2:]
        f = self.config.downsampling
        if height % f or width % f:
            raise ValueError(f"pictures must be divisible by {f} on both sides, got {(height, width)}")
        answers = [self.autoencoder.encode(part) for part in _parts(images, height * width)]
        if self.config.family == "AutoencoderTiny":
            z_raw = torch.cat([answer.latents for answer in answers])
            return z_raw, torch.full_like(z_raw, SURE)
        posteriors = [answer.latent_dist for answer in answers]
        return torch.cat([p.mean for p in posteriors]), torch.cat([p.logvar for p in posteriors])

    def decode(self, z_raw: Tensor) -> Tensor:
        """z_raw (b, c, h, w) -> images (b, 3, f h, f w), about [-1, 1] and not clipped."""
        pixels = z_raw.shape[-2] * z_raw.shape[-1] * self.config.downsampling**2
        return torch.cat([self.autoencoder.decode(part).sample for part in _parts(z_raw, pixels)])


def load_pretrained_vae(id_or_folder: str | Path) -> PretrainedVAE:
    """The AutoencoderKL or AutoencoderTiny of a folder (its own or a pipeline's) or a hub id, in float32, frozen.

    A copy in the hub's cache is used as it is and without the network; else an id is downloaded. Only safetensors are
    read. UserError if it is not there, is neither class or not one of RGB pictures, or diffusers is missing.
    """
    folder, source = _found(id_or_folder)
    vae = PretrainedVAE(_described(folder, source))
    path = _weights(folder)
    # Attention was renamed in diffusers 0.15; the best known VAEs are older and their files keep the former names.
    tensors = {
        OLD_ATTENTION.sub(lambda found: f"{found[1]}{NEW_ATTENTION[found[2]]}.", name): tensor
        for name, tensor in load_tensors(path).items()
    }
    try:
        vae.autoencoder.load_state_dict(tensors)
    except RuntimeError as error:
        problem = shorten(str(error).partition(":")[2], 120)
        raise UserError(f"{path} does not fit the {CONFIG} beside it ({problem})", "restore both files") from None
    return vae.eval().requires_grad_(False)


def pretrained_vae_config(id_or_folder: str | Path) -> PretrainedVAEConfig:
    """The config that `load_pretrained_vae` would give, in full, without reading the weights; the same UserErrors.

    Of the weights' file only the header is read, so that a truncated one is noticed here already.
    """
    folder, source = _found(id_or_folder)
    with torch.device("meta"):
        config = PretrainedVAE(_described(folder, source)).config
    path = _weights(folder)
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CorruptFileError(f"{path} is not whole ({error})", "it was truncated or altered") from None
    return config


def _parts(tensor: Tensor, pixels: int) -> tuple[Tensor, ...]:
    """Rows of `tensor`, each worth `pixels` of picture, in parts of at most PIXELS_AT_ONCE."""
    return tensor.split(max(1, PIXELS_AT_ONCE // pixels))


def _found(id_or_folder: str | Path) -> tuple[Path, str]:
    """The folder of config and weights, and the name it goes by."""
    _autoencoder_class(FAMILIES[0])  # what is missing is said before anything is downloaded
    given = Path(id_or_folder).expanduser()
    if given.is_dir():
        folder = vae_folder(given)
        if folder is None:
            raise UserError(f"{given} has no {CONFIG}", "give a folder that diffusers' save_pretrained wrote")
        return folder, given.resolve().name
    if HUB_ID.fullmatch(str(id_or_folder)) and not given.exists():
        source = str(id_or_folder)
        return cached(source) or downloaded(source), source
    what = "is a file" if given.exists() else "is neither a folder nor a hub id (owner/name)"
    raise UserError(f"{given} {what}", "give a folder that diffusers' save_pretrained wrote")


def _described(folder: Path, source: str) -> PretrainedVAEConfig:
    """What the folder's config.json says."""
    settings = read_json(folder / CONFIG)
    name = settings.get("_class_name") if isinstance(settings, dict) else None
    if name not in FAMILIES:
        raise UserError(
            f"{folder / CONFIG} describes {name or 'no diffusers model'}", f"choose {' or '.join(FAMILIES)}"
        )
    kept = {key: value for key, value in settings.items() if not key.startswith("_")}
    if name == "AutoencoderTiny":
        kept.pop(DERIVED, None)
    return PretrainedVAEConfig(family=name, source=source, settings=kept)


def _weights(folder: Path) -> Path:
    path = next((folder / weights for weights in WEIGHTS if (folder / weights).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no {WEIGHTS[0]}", "save it again with safe_serialization=True")
    return path


def _autoencoder_class(family: str) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise UserError(f"a pretrained VAE needs package '{error.name}'", "pip install 'calotype[diffusers]'") from None
    return getattr(diffusers, family)


def _build(config: PretrainedVAEConfig) -> Any:
    """The diffusers module of `config`, its weights still random."""
    family, source = _autoencoder_class(config.family), config.source
    known = set(inspect.signature(family).parameters)
    for name in config.settings:
        if name not in known:
            raise UserError(f"pretrained VAE '{source}': unknown key '{name}'", nearest(name, known))
    try:
        autoencoder = family(**config.settings)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"pretrained VAE '{source}': diffusers cannot build it ({shorten(str(error), 120)})",
            f"restore its {CONFIG}, or update diffusers",
        ) from None
    chosen = autoencoder.config
    channels = chosen.in_channels, chosen.out_channels
    if channels != (3, 3):
        raise UserError(
            f"pretrained VAE '{source}' takes pictures of {channels[0]} channels and gives {channels[1]}",
            "choose one of RGB pictures, 3 and 3",
        )
    if config.family == "AutoencoderTiny":
        ways = 2, chosen.upsampling_scaling_factor
        levels = len(chosen.encoder_block_out_channels), len(chosen.decoder_block_out_channels)
        down, up = (way ** (level - 1) for way, level in zip(ways, levels, strict=True))
        if down != up:
            raise UserError(
                f"pretrained VAE '{source}' divides sides by {down} and multiplies them by {up}",
                "choose one whose pictures keep their size",
            )
    return autoencoder
