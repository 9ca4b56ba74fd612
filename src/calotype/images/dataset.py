"""Pictures made ready for training: decoded once into one memory-mapped array, with an index and a list of refusals.

folder/pictures.npy       uint8 (n, 3, size, size)
folder/index.jsonl        a line a row: name, sha256 of the file, crop, caption, label, split
folder/quarantine.jsonl   a line a refused file: path, reason, bytes
folder/duplicates.jsonl   a line a copy: path, copy_of, kind (equal, near), dropped
folder/data.json          facts; written last, so the folder is complete where it exists
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_json, write_text
from calotype.core.progress import Reporter
from calotype.images.decode import VERSION
from calotype.images.preparing import Prepared, count_leaks, decode_all, describe_originals, records_of
from calotype.images.quarantine import group_reasons
from calotype.images.settings import PictureConfig
from calotype.images.source import Source

FORMAT = 2

FACTS, QUARANTINE, DUPLICATES = "data.json", "quarantine.jsonl", "duplicates.jsonl"
_PICTURES, _INDEX = "pictures.npy", "index.jsonl"
_AS_USUAL = PictureConfig()


@dataclass
class PictureSet:
    """Pictures as `pixels` uint8 (n, 3, size, size), memory-mapped copy-on-write, and what is known of each.

    A row is one crop of one file: `digests` has the sha256 (hex) of the file, `crops` which crop of it. `held_out`
    (n,) bool marks rows never trained on. `refused` counts files that were not readable, `equal_copies` and
    `near_copies` files like an earlier one, `dropped` those of them that were left out. `transform` says what was done
    to each file.
    """

    pixels: Tensor
    names: list[str]
    captions: list[str | None]
    labels: list[str | None]
    held_out: Tensor
    refused: int
    source: str
    attribution: str
    licence: str
    digests: list[str] = field(default_factory=list)
    crops: list[int] = field(default_factory=list)
    transform: str = ""
    equal_copies: int = 0
    near_copies: int = 0
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def classes(self) -> list[str]:
        """Distinct labels, sorted: the position of a label here is its class number."""
        return sorted({label for label in self.labels if label is not None})

    @cached_property
    def train_ids(self) -> Tensor:
        """Rows to train on, int64, ascending."""
        return (~self.held_out).nonzero().flatten()

    @cached_property
    def held_out_ids(self) -> Tensor:
        """Rows to measure on, int64, ascending; may be empty for fewer than eight pictures."""
        return self.held_out.nonzero().flatten()

    @cached_property
    def keys(self) -> NDArray[np.uint8]:
        """What each row is, uint8 (n, 32): the sha256 of its file's digest and its crop; equal files share keys."""
        rows = zip(self.digests, self.crops, strict=True)
        joined = b"".join(sha256(f"{digest}:{crop}".encode()).digest() for digest, crop in rows)
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)

    @property
    def copies(self) -> str:
        """What was found of copies, in words; empty where there are none."""
        if not self.equal_copies + self.near_copies:
            return ""
        found = f"{self.equal_copies:,} copies by their bytes, {self.near_copies:,} by their looks"
        return found + (f", {self.dropped:,} left out" if self.dropped else "")

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return int(self.pixels.shape[-1])

    @property
    def has_captions(self) -> bool:
        return any(caption is not None for caption in self.captions)

    @property
    def has_labels(self) -> bool:
        return bool(self.classes)


def prepare(
    source: Source,
    size: int,
    folder: Path,
    reporter: Reporter,
    config: PictureConfig = _AS_USUAL,
    *,
    least: int = 2,
) -> PictureSet:
    """Decode every picture of `source` to (3, size, size) into `folder` as `config` says, and load the result.

    Files that cannot be read are left out, counted, listed in quarantine.jsonl and reported; copies are counted, listed
    in duplicates.jsonl and left out if that is asked. UserError when fewer than `least` pictures can be read, when more
    than `config.max_refused` of the files cannot, or when the disk has no room. A kill at any instant leaves a folder
    that `load_prepared` calls incomplete, and the same call does the work again.
    """
    if size < 1:
        raise UserError(f"size {size}: pictures need at least one pixel", "give a size such as 64")
    reporter.stage("pictures", f"{source.name}, {len(source.pictures):,} files at {size} px")
    for note in source.notes:
        reporter.warn(note)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    found = decode_all(source, size, folder / _PICTURES, reporter, config)
    write_text(folder / QUARANTINE, _lines(found.refused))
    write_text(folder / DUPLICATES, _lines(found.copies))
    try:
        _judge(found, source, folder, reporter, config, least)
    except UserError:
        (folder / _PICTURES).unlink()
        raise
    records = records_of(found)
    index = _lines(records)
    write_text(folder / _INDEX, index)
    leaks = count_leaks(found, records)
    if leaks:
        reporter.warn(f"{leaks} copies have their like on the other side of the split; see {folder / DUPLICATES}")
    facts = {
        "format": FORMAT,
        "source": source.name,
        "attribution": source.attribution,
        "licence": source.licence,
        "size": size,
        "transform": json.dumps({"decoder": VERSION, **asdict(config.transform(size))}, sort_keys=True),
        "pictures": len(records),
        "held_out": sum(record["split"] == "held-out" for record in records),
        "files": len(found.files),
        "refused": len(found.refused),
        "equal_copies": found.count_copies(kind="equal"),
        "near_copies": found.count_copies(kind="near"),
        "copies_across_split": leaks,
        "dropped": found.dropped,
        "originals": describe_originals(found.files, size),
        "pictures_bytes": (folder / _PICTURES).stat().st_size,
        "index_sha256": sha256(index.encode()).hexdigest(),
    }
    write_json(folder / FACTS, facts)
    prepared = load_prepared(folder)
    if prepared is None:
        raise CorruptFileError(f"{folder}: changed while it was being prepared", "run the same command again")
    return prepared


def load_prepared(folder: Path) -> PictureSet | None:
    """The pictures that `prepare` left in `folder`, or None if it did not finish or its files were altered."""
    if not (folder / FACTS).is_file():
        return None
    try:
        facts = read_json(folder / FACTS)
        index = (folder / _INDEX).read_bytes()
        if facts["format"] != FORMAT or facts["index_sha256"] != sha256(index).hexdigest():
            return None
        if (folder / _PICTURES).stat().st_size != facts["pictures_bytes"]:
            return None
        records = [json.loads(line) for line in index.decode().split("\n") if line]
        pixels = np.load(folder / _PICTURES, mmap_mode="c", allow_pickle=False)
        if pixels.shape != (len(records), 3, facts["size"], facts["size"]) or pixels.dtype != np.uint8:
            return None
        return PictureSet(
            pixels=torch.from_numpy(pixels),
            names=[record["name"] for record in records],
            captions=[record["caption"] for record in records],
            labels=[record["label"] for record in records],
            held_out=torch.tensor([record["split"] == "held-out" for record in records]),
            refused=facts["refused"],
            source=facts["source"],
            attribution=facts["attribution"],
            licence=facts["licence"],
            digests=[record["sha256"] for record in records],
            crops=[record["crop"] for record in records],
            transform=facts["transform"],
            equal_copies=facts["equal_copies"],
            near_copies=facts["near_copies"],
            dropped=facts["dropped"],
        )
    except (CorruptFileError, OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with these files, preparing them again mends it


def _judge(
    found: Prepared, source: Source, folder: Path, reporter: Reporter, config: PictureConfig, least: int
) -> None:
    """Too few readable pictures, or too many refused, is an error; some refused are reported with their reasons."""
    refused, total = len(found.refused), len(found.refused) + found.readable
    reasons = "; ".join(group.line for group in group_reasons(found.refused)[:3])
    if len(found.files) < least:
        what = f"{source.name}: {found.readable} of {total} pictures can be read"
        what += f", {found.dropped} of them a copy" if found.dropped else ""
        raise UserError(f"{what} ({reasons})" if reasons else what, "training needs at least two, better hundreds")
    if not refused:
        return
    what = f"{refused:,} of {total:,} files could not be read"
    listed = f"({reasons}; all are listed in {folder / QUARANTINE})"
    if config.is_stopped_by(refused, total):
        share = math.ceil(100 * refused / total) / 100
        more = f"mend or remove them, or go on without them: --set data.max_refused={share:g}"
        raise UserError(
            f"{source.name}: {what}, more than the share {config.max_refused:g} that is let pass {listed}", more
        )
    reporter.warn(f"{what} {listed}")


def _lines(records: list[dict[str, Any]]) -> str:
    """JSON lines; what UTF-8 cannot hold (a lone surrogate from a caption) becomes '?'."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return text.encode("utf-8", errors="replace").decode()
