"""Every picture through the VAE once, into shards that later runs and later days use again.

folder/statistics.json              mean, std and bound of the training pictures, measured once, and the key they are of
folder/KEY/key.json                 what KEY stands for: this VAE, these pictures' transform, mirrored or not
folder/KEY/SHA256.safetensors       up to 1,024 pictures each: keys uint8 (n, 32), values float16 (n, v, 2, c, h, w)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, write_json
from calotype.core.progress import Reporter, Silent
from calotype.core.shards import ShardStore, cut
from calotype.images.pixels import to_float
from calotype.latents import tiling
from calotype.latents.cache import VALUES, LatentSet, measure, open_rows
from calotype.latents.codec import LatentStatistics
from calotype.latents.first_stage import FirstStage

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet

FORMAT = 1
SHARD = 1024  # pictures
BATCH = 64  # pictures, fixed: what is computed must not depend on how much of it was done before
STATISTICS = "statistics.json"


def encode_pictures(
    vae: FirstStage,
    pictures: PictureSet,
    folder: Path,
    *,
    mirrored: bool,
    reporter: Reporter | None = None,
    beside: Iterable[Path] = (),
) -> LatentSet:
    """The posteriors of all pictures, those that `folder` lacks encoded, in turn by every process of a group.

    `beside` are other such folders, whose shards of the same VAE and transform are taken over. A kill at any instant
    loses the shards in work and no other; the finished files are those of an undisturbed run, byte for byte.
    """
    reporter = reporter or Silent()
    described = describe(vae, pictures, mirrored=mirrored)
    key = _short(described)
    store = ShardStore(folder / key)
    if distributed.rank() == 0:
        _make_ready(store, described, pictures, reporter, [other / key for other in beside])
    distributed.barrier()
    missing = store.missing(pictures.keys)
    distributed.barrier()  # nobody writes while somebody still looks what there is to do
    if len(missing):
        reporter.stage("latents", f"{len(missing):,} of {len(pictures):,} pictures to encode")
        units = list(cut(missing, SHARD))[distributed.rank() :: distributed.world_size()]
        _encode_units(vae, pictures, store, [torch.from_numpy(unit) for unit in units], mirrored, reporter)
    else:
        reporter.say(f"latents of all {len(pictures):,} pictures are there: nothing to encode")
    distributed.barrier()
    rows = open_rows(store, pictures.keys)
    if distributed.rank() == 0:
        if read_statistics(folder, key) is None:
            write_json(folder / STATISTICS, {"key": key, **measure(rows, pictures.train_ids).model_dump()})
        _remove_others(folder, key)
    distributed.barrier()
    statistics = read_statistics(folder, key)
    if statistics is None:
        raise CorruptFileError(f"{folder / STATISTICS} was removed", "give the same command again")
    return LatentSet(rows, statistics)


def read_statistics(folder: Path, key: str | None = None) -> LatentStatistics | None:
    """What the latents in `folder` are standardised by; None if that was not measured, or for another `key`."""
    if not (folder / STATISTICS).exists():
        return None
    values = read_json(folder / STATISTICS)
    known = values.pop("key", None) if isinstance(values, dict) else None
    if key is not None and known != key:
        return None
    return LatentStatistics.parse(values, str(folder / STATISTICS))


def describe(vae: FirstStage, pictures: PictureSet, *, mirrored: bool) -> dict[str, object]:
    """Everything that the latents of a picture depend on, but for the picture's own bytes."""
    return {
        "format": FORMAT,
        "vae_sha256": weights_sha256(vae),
        "vae": vae.config.model_dump(mode="json", exclude={"source"}),  # where a VAE came from changes nothing
        "transform": json.loads(pictures.transform),
        "mirrored": mirrored,
    }


def weights_sha256(module: nn.Module) -> str:
    """Hex sha256 of a module's weights: names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _short(described: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _make_ready(
    store: ShardStore, described: dict[str, object], pictures: PictureSet, reporter: Reporter, beside: list[Path]
) -> None:
    """Say what this folder is, drop what is not whole, take over what others have."""
    store.folder.mkdir(parents=True, exist_ok=True)
    if not (store.folder / "key.json").exists():
        write_json(store.folder / "key.json", described)
    for place in (store, ShardStore(store.folder.parent)):
        place.clear()
    for name in store.verify():
        reporter.warn(f"{store.folder / name} was damaged: its pictures are encoded again")
    adopted = store.adopt(beside, pictures.keys)
    if adopted:
        reporter.say(f"latents of {adopted:,} pictures come from another run with this VAE")


def _encode_units(
    vae: FirstStage, pictures: PictureSet, store: ShardStore, units: list[Tensor], mirrored: bool, reporter: Reporter
) -> None:
    """Write a shard a unit."""
    total, done, started = sum(len(unit) for unit in units), 0, time.monotonic()
    for unit in units:
        parts = []
        for ids in unit.split(BATCH):
            parts.append(_posteriors(vae, to_float(pictures.pixels[ids]), mirrored))
            done += len(ids)
            rate = done / max(time.monotonic() - started, 1e-9)
            reporter.update(done, total, rate=rate, eta=(total - done) / rate)
        store.add(pictures.keys[unit.numpy()], {VALUES: torch.cat(parts)})


@torch.no_grad()
def _posteriors(vae: FirstStage, images: Tensor, mirrored: bool) -> Tensor:
    """images (b, 3, H, W) -> float16 (b, v, 2, c, h, w)."""
    vae.eval()
    images = images.to(next(vae.parameters()).device)
    variants = []
    for seen in (images, images.flip(-1))[: 1 + mirrored]:
        mean, logvar = tiling.encode(vae, seen)
        variants.append(torch.stack([mean, torch.exp(0.5 * logvar)], dim=1))
    return torch.stack(variants, dim=1).half().cpu()


def _remove_others(folder: Path, key: str) -> None:
    """Latents of a VAE or transform that this run no longer has, and those of an older format."""
    for other in folder.iterdir():
        if other.is_dir() and other.name != key and re.fullmatch("[0-9a-f]{16}", other.name):
            shutil.rmtree(other)
    for name in ("latents.safetensors", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
