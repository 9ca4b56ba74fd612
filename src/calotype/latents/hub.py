"""Where a VAE's files are: a folder, the hub's cache, or the Hugging Face hub itself."""

from __future__ import annotations

from pathlib import Path

from calotype.core import hub
from calotype.core.errors import UserError

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")  # the first there is


def vae_folder(root: Path) -> Path | None:
    """Where a config stands: the `vae` folder of a whole pipeline, or `root` itself."""
    return next((folder for folder in (root / "vae", root) if (folder / CONFIG).is_file()), None)


def cached(hub_id: str) -> Path | None:
    """The whole VAE in the hub's cache, if there is one; never asks the network."""
    root = hub.cached(hub_id, [f"vae/{CONFIG}", CONFIG])
    folder = None if root is None else vae_folder(root)
    whole = folder is not None and any((folder / name).is_file() for name in WEIGHTS)
    return folder if whole else None


def downloaded(hub_id: str) -> Path:
    """Download config and weights into the hub's cache. What went wrong, and the way without a network, in one line."""
    wanted = [inside + name for inside in ("vae/", "") for name in (CONFIG, WEIGHTS[0])]
    root = hub.downloaded(hub_id, wanted, f"{CONFIG} and {WEIGHTS[0]} (a pipeline has them in vae/)")
    folder = vae_folder(root)
    if folder is None:
        raise UserError(f"'{hub_id}' has no {CONFIG}, of its own or in vae/", "choose an AutoencoderKL")
    if not any((folder / name).is_file() for name in WEIGHTS):  # the hub's client gives the half it has when offline
        raise UserError(
            f"'{hub_id}' is here in part, without {WEIGHTS[0]} ({folder})", "go online once, or download it"
        )
    return folder
