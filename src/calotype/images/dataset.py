"""Pictures made ready for training: decoded once into one memory-mapped array, with an index and a list of refusals.

folder/pictures.npy       uint8 (n, 3, size, size)
folder/index.jsonl        a line a picture: name, sha256 of the file, caption, label, split
folder/quarantine.jsonl   a line a refused file: path, reason, bytes
folder/data.json          facts; written last, so the folder is complete where it exists
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_json, write_text
from calotype.core.progress import Reporter
from calotype.images.preparing import Prepared, decode_all
from calotype.images.source import Source, Split

FORMAT = 1
HELD_OUT_SHARE = 0.05
ALWAYS_HELD_OUT_FROM = 8  # a set of this many pictures has at least one held out

_PICTURES, _INDEX, _QUARANTINE, _FACTS = "pictures.npy", "index.jsonl", "quarantine.jsonl", "data.json"


@dataclass
class PictureSet:
    """Pictures as `pixels` uint8 (n, 3, size, size), memory-mapped copy-on-write, and what is known of each.

    `held_out` (n,) bool marks those never trained on; `refused` counts files that were not readable.
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


def prepare(source: Source, size: int, folder: Path, reporter: Reporter) -> PictureSet:
    """Decode every picture of `source` to (3, size, size) into `folder`, and load the result.

    Files that cannot be read are left out, counted, listed in quarantine.jsonl and reported; all else is an error:
    UserError when fewer than two pictures can be read, or when the disk has no room. A kill at any instant leaves a
    folder that `load_prepared` calls incomplete, and the same call does the work again.
    """
    if size < 1:
        raise UserError(f"size {size}: pictures need at least one pixel", "give a size such as 64")
    reporter.stage("pictures", f"{source.name}, {len(source.pictures):,} files at {size} px")
    for note in source.notes:
        reporter.warn(note)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FACTS).unlink(missing_ok=True)
    found = decode_all(source, size, folder / _PICTURES, reporter)
    write_text(folder / _QUARANTINE, _lines(found.refused))
    _judge(found, source, folder, reporter)
    _split(found)
    index = _lines(found.records)
    write_text(folder / _INDEX, index)
    facts = {
        "format": FORMAT,
        "source": source.name,
        "attribution": source.attribution,
        "licence": source.licence,
        "size": size,
        "pictures": len(found.records),
        "held_out": sum(record["split"] == "held-out" for record in found.records),
        "refused": len(found.refused),
        "pictures_bytes": (folder / _PICTURES).stat().st_size,
        "index_sha256": sha256(index.encode()).hexdigest(),
    }
    write_json(folder / _FACTS, facts)
    prepared = load_prepared(folder)
    if prepared is None:
        raise CorruptFileError(f"{folder}: changed while it was being prepared", "run the same command again")
    return prepared


def load_prepared(folder: Path) -> PictureSet | None:
    """The pictures that `prepare` left in `folder`, or None if it did not finish or its files were altered."""
    if not (folder / _FACTS).is_file():
        return None
    try:
        facts = read_json(folder / _FACTS)
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
        )
    except (CorruptFileError, OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with these files, preparing them again mends it


def held_out_split(hashes: list[str], wishes: list[Split | None]) -> list[Split]:
    """Who is held out, from the sha256 of each file alone: the 5 % whose hash, read as a fraction, is below .05.

    A picture's side therefore does not depend on the others, copies share a side, and `wishes` (a source's own split)
    override. The one exception is for small sets: from eight pictures on, the smallest hash is held out if nobody
    is; and the largest is trained on if everybody else is held out.
    """
    fractions = [int(value[:13], 16) / 16**13 for value in hashes]
    split: list[Split] = [
        wish or ("held-out" if fraction < HELD_OUT_SHARE else "train")
        for wish, fraction in zip(wishes, fractions, strict=True)
    ]
    free = [row for row, wish in enumerate(wishes) if wish is None]
    if "held-out" not in split and len(split) >= ALWAYS_HELD_OUT_FROM and free:
        smallest = min(fractions[row] for row in free)
        split = ["held-out" if row in free and fractions[row] == smallest else split[row] for row in range(len(split))]
    if "train" not in split and split:
        split[max(range(len(split)), key=fractions.__getitem__)] = "train"
    return split


def _split(found: Prepared) -> None:
    """Write the split into the records."""
    hashes = [record["sha256"] for record in found.records]
    for record, split in zip(found.records, held_out_split(hashes, found.wishes), strict=True):
        record["split"] = split


def _judge(found: Prepared, source: Source, folder: Path, reporter: Reporter) -> None:
    """Too few readable pictures is an error; refused ones are reported with the first reasons."""
    refused, readable = len(found.refused), len(found.records)
    reasons = "; ".join(f"{record['path']}: {record['reason']}" for record in found.refused[:3])
    if readable < 2:
        (folder / _PICTURES).unlink(missing_ok=True)
        what = f"{source.name}: {readable} of {readable + refused} pictures can be read"
        raise UserError(f"{what} ({reasons})" if reasons else what, "training needs at least two, better hundreds")
    if refused:
        share = "more than half: " if refused > readable else ""
        more = f"; all are listed in {folder / _QUARANTINE}"
        reporter.warn(f"{share}{refused} of {readable + refused} files could not be read ({reasons}{more})")


def _lines(records: list[dict[str, Any]]) -> str:
    """JSON lines; what UTF-8 cannot hold (a lone surrogate from a caption) becomes '?'."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return text.encode("utf-8", errors="replace").decode()
