"""Any diffusers AutoencoderKL (Rombach et al. 2022) as the first stage: a folder, or an id of the Hugging Face hub."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import Tensor, nn

from calotype.core.config import Config
from calotype.core.errors import UserError, nearest
from calotype.core.files import read_json
from calotype.core.tensors import load_tensors

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")  # the first there is
PIXELS_AT_ONCE = 2**18  # 16 pictures of 128 px: one map of 128 channels at full resolution is then 128 MiB
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
OLD_ATTENTION = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class PretrainedVAEConfig(Config):
    """What builds the module again without its folder: the diffusers class, and that class's own settings.

    `source` is the hub id, or the folder's name. diffusers' scaling_factor is kept and never applied: the codec
    measures.
    """

    family: Literal["AutoencoderKL"] = "AutoencoderKL"
    source: str
    settings: dict[str, Any]

    @property
    def latent_channels(self) -> int:
        return int(self.settings["latent_channels"])

    @property
    def downsampling(self) -> int:
        """Pixels per latent position and side: every level but the last halves."""
        return int(2 ** (len(self.settings["block_out_channels"]) - 1))


class PretrainedVAE(nn.Module):
    """A diffusers AutoencoderKL with ConvVAE's methods; like it, made empty and filled by `load_state_dict`."""

    def __init__(self, config: PretrainedVAEConfig) -> None:
        super().__init__()
        self.autoencoder = _build(config)
        chosen = {name: value for name, value in self.autoencoder.config.items() if not name.startswith("_")}
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
        posteriors = [self.autoencoder.encode(part).latent_dist for part in _parts(images, height * width)]
        return torch.cat([p.mean for p in posteriors]), torch.cat([p.logvar for p in posteriors])

    def decode(self, z_raw: Tensor) -> Tensor:
        """z_raw (b, c, h, w) -> images (b, 3, f h, f w), about [-1, 1] and not clipped."""
        pixels = z_raw.shape[-2] * z_raw.shape[-1] * self.config.downsampling**2
        return torch.cat([self.autoencoder.decode(part).sample for part in _parts(z_raw, pixels)])


def load_pretrained_vae(id_or_folder: str | Path) -> PretrainedVAE:
    """The AutoencoderKL of a folder (its own or a pipeline's) or a hub id, in float32 on the CPU, frozen.

    A copy in the hub's cache is used as it is and without the network; else an id is downloaded. Only safetensors are
    read. UserError if it is not there, is not an AutoencoderKL of RGB pictures, or diffusers is missing.
    """
    _autoencoder_class()  # what is missing is said before anything is downloaded
    given = Path(id_or_folder).expanduser()
    if given.is_dir():
        folder, source = _vae_folder(given), given.resolve().name
        if folder is None:
            raise UserError(f"{given} has no {CONFIG}", "give a folder that diffusers' save_pretrained wrote")
    elif HUB_ID.fullmatch(str(id_or_folder)) and not given.exists():
        source = str(id_or_folder)
        folder = _cached(source) or _downloaded(source)
    else:
        what = "is a file" if given.exists() else "is neither a folder nor a hub id (owner/name)"
        raise UserError(f"{given} {what}", "give a folder that diffusers' save_pretrained wrote")
    return _read(folder, source).eval().requires_grad_(False)


def _parts(tensor: Tensor, pixels: int) -> tuple[Tensor, ...]:
    """Rows of `tensor`, each worth `pixels` of picture, in parts of at most PIXELS_AT_ONCE."""
    return tensor.split(max(1, PIXELS_AT_ONCE // pixels))


def _autoencoder_class() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise UserError(f"a pretrained VAE needs package '{error.name}'", "pip install 'calotype[diffusers]'") from None
    return AutoencoderKL


def _build(config: PretrainedVAEConfig) -> Any:
    """The diffusers module of `config`, its weights still random."""
    family, source = _autoencoder_class(), config.source
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
    channels = autoencoder.config.in_channels, autoencoder.config.out_channels
    if channels != (3, 3):
        raise UserError(
            f"pretrained VAE '{source}' takes pictures of {channels[0]} channels and gives {channels[1]}",
            "choose one of RGB pictures, 3 and 3",
        )
    return autoencoder


def _read(folder: Path, source: str) -> PretrainedVAE:
    """The VAE that diffusers saved in `folder`."""
    settings = read_json(folder / CONFIG)
    name = settings.get("_class_name") if isinstance(settings, dict) else None
    if name != "AutoencoderKL":
        raise UserError(f"{folder / CONFIG} describes {name or 'no diffusers model'}", "choose an AutoencoderKL")
    path = next((folder / weights for weights in WEIGHTS if (folder / weights).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no {WEIGHTS[0]}", "save it again with safe_serialization=True")
    vae = PretrainedVAE(
        PretrainedVAEConfig(source=source, settings={k: v for k, v in settings.items() if not k.startswith("_")})
    )
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
    return vae


def _vae_folder(root: Path) -> Path | None:
    """Where a config stands: the `vae` folder of a whole pipeline, or `root` itself."""
    return next((folder for folder in (root / "vae", root) if (folder / CONFIG).is_file()), None)


def _cached(hub_id: str) -> Path | None:
    """The whole VAE in the hub's cache, if there is one; never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    for inside in ("vae/", ""):
        for weights in WEIGHTS:
            found = [try_to_load_from_cache(hub_id, inside + name) for name in (CONFIG, weights)]
            if all(isinstance(path, str) for path in found):
                return Path(str(found[0])).parent
    return None


def _downloaded(hub_id: str) -> Path:
    """Download config and weights into the hub's cache. What went wrong, and the way without a network, in one line."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page = f"{constants.ENDPOINT}/{hub_id}"
    try:
        with _no_telemetry(constants):
            wanted = [inside + name for inside in ("vae/", "") for name in (CONFIG, WEIGHTS[0])]
            root = Path(snapshot_download(hub_id, allow_patterns=wanted))
    except GatedRepoError:
        raise UserError(f"{page} asks its users to agree first", "do so there, then: hf auth login") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"'{hub_id}' is neither a folder nor a public model of the hub", "check the name; if private: hf auth login"
        ) from None
    except Exception as error:  # the hub's HTTP library, and so its errors, differ between releases
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(error.__cause__ or error).__name__
        raise UserError(
            f"'{hub_id}' is neither a folder nor in {constants.HF_HUB_CACHE}, and not to be had now ({reason})",
            f"download {CONFIG} and {WEIGHTS[0]} of {page} (a pipeline has them in vae/) into a folder and give that",
        ) from None
    folder = _vae_folder(root)
    if folder is None:
        raise UserError(f"{page} has no {CONFIG}, of its own or in vae/", "choose an AutoencoderKL")
    return folder


@contextmanager
def _no_telemetry(constants: Any) -> Iterator[None]:
    """Keep the hub's client from telling the versions and the tool it runs under; the user's own choice is restored."""
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
