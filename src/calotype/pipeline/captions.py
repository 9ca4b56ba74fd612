"""The training captions, each encoded once, in shards that later runs use again.

captions/KEY/key.json             the text encoder, and whether token states are kept
captions/KEY/SHA256.safetensors   up to 1,024 captions each: keys (n, 32), pooled (n, d), tokens (n, m, e), mask (n, m)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_json
from calotype.core.progress import Reporter
from calotype.core.shards import Keys, Places, ShardStore, cut, hashed, read_shard
from calotype.core.types import TextEmbedding, TextEncoder
from calotype.pipeline.run import Run
from calotype.recipes import Recipe

FORMAT = 1
SHARD = 1024  # captions
MUCH = 2**30  # bytes of token states that are worth a word
ENCODER = ("id", "sha256", "dim", "token_dim")
_KEY = re.compile("[0-9a-f]{16}")


def encode_captions(
    run: Run, recipe: Recipe, captions: list[str], reporter: Reporter, beside: Iterable[Path] | None = None
) -> tuple[TextEmbedding, dict[str, Any]]:
    """Embeddings of the distinct captions and what is known of their encoder; encoded once, so that resume is exact.

    `beside` are folders of captions whose shards of the same encoder are taken over; those of the runs next to this
    one, unless given. A run whose denoiser has learned from another encoder is refused. Token states are kept for a
    network that looks at them alone.
    """
    from calotype.text import encoder_fingerprint

    tokens, keys = recipe.network.text_tokens, _keys(captions)
    wanted = {"format": FORMAT, "sha256": encoder_fingerprint(recipe.text_encoder), "tokens": tokens}
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    store = ShardStore(run.captions / key)
    for name in store.verify():
        reporter.warn(f"{store.folder / name} was damaged: its captions are encoded again")
    if len(store.missing(keys)) or not (store.folder / "key.json").exists():
        of_others = [path for path in run.captions.glob("*") if path != store.folder and _KEY.fullmatch(path.name)]
        if not store.paths and of_others and any(run.denoiser.glob("step-*")):
            raise UserError(
                f"{run.folder} was trained with captions of another text encoder",
                "put it back, or choose another --out",
            )
        others = sorted(run.folder.parent.glob("*/captions")) if beside is None else beside
        _fill(store, recipe, captions, keys, wanted, reporter, [other / key for other in others])
    for other in run.captions.iterdir():
        if other != store.folder:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    text, known = _gathered(store.locate(keys)), read_json(store.folder / "key.json")
    if text.tokens.nbytes > MUCH:
        reporter.say(f"the captions' token states take {text.tokens.nbytes / 2**30:.1f} GiB of memory")
    if not isinstance(known, dict) or not {*ENCODER} <= known.keys():
        raise CorruptFileError(f"{store.folder / 'key.json'} names no encoder", "remove it")
    return text, {name: known[name] for name in ENCODER}


def _fill(
    store: ShardStore,
    recipe: Recipe,
    captions: list[str],
    keys: Keys,
    wanted: dict[str, Any],
    reporter: Reporter,
    beside: list[Path],
) -> None:
    """Take over or encode what is missing."""
    from calotype.text import encode_parts, load_text_encoder

    store.clear()
    adopted = store.adopt(beside, keys)
    if adopted:
        reporter.say(f"{adopted:,} captions come encoded from another run")
    missing = store.missing(keys)
    if len(missing):
        reporter.stage("captions", f"{len(missing):,} of {len(captions):,} distinct ones to encode")
    encoder: TextEncoder = load_text_encoder(recipe.text_encoder)
    described = {"id": encoder.id, "dim": encoder.dim, "token_dim": encoder.token_dim}
    write_json(store.folder / "key.json", {**wanted, **described, "sha256": encoder.fingerprint})
    if not len(missing):
        return
    done = 0
    units, texts = list(cut(missing, SHARD)), [captions[row] for row in missing.tolist()]
    parts = encode_parts(encoder, texts, SHARD, tokens=wanted["tokens"])
    for unit, text in zip(units, parts, strict=True):  # to the parts' very end: what was cut is told there
        tensors = {"pooled": text.pooled, "tokens": text.tokens, "mask": text.mask.to(torch.uint8)}
        store.add(keys[unit], tensors)
        done += len(unit)
        reporter.update(done, len(texts))


def _gathered(places: Places) -> TextEmbedding:
    """The embeddings at `places`, in this order; tokens (n, longest, e) as long as the longest of these captions."""
    if not places.found.all():
        raise CorruptFileError(
            f"{int((~places.found).sum())} captions were removed while they were read", "give the same command again"
        )
    used = np.unique(places.shard).tolist()
    rows, shards = torch.from_numpy(places.row.astype(np.int64)), torch.from_numpy(places.shard)
    longest = max(_longest(read_shard(places.paths[shard])["mask"][rows[shards == shard]]) for shard in used)
    first = read_shard(places.paths[used[0]])
    pooled = torch.empty(len(rows), first["pooled"].shape[1])
    tokens = torch.zeros(len(rows), longest, first["tokens"].shape[2])
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for shard in used:  # one at a time: all of them beside the whole would be twice as much
        part = read_shard(places.paths[shard])
        chosen = (shards == shard).nonzero().flatten()
        width = min(longest, part["mask"].shape[1])
        pooled[chosen] = part["pooled"][rows[chosen]]
        tokens[chosen, :width] = part["tokens"][rows[chosen], :width]
        mask[chosen, :width] = part["mask"][rows[chosen], :width].bool()
    return TextEmbedding(pooled, tokens, mask)


def _longest(mask: Tensor) -> int:
    """The tokens of the longest row of mask (n, m)."""
    return int(mask.sum(1).max()) if mask.numel() else 0


def _keys(captions: list[str]) -> Keys:
    return np.frombuffer(b"".join(hashed(caption) for caption in captions), dtype=np.uint8).reshape(-1, 32)
