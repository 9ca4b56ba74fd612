"""What file names and the files beside them say of pictures: captions, labels, split.

The conventions are those of Hugging Face's *imagefolder* and of WebDataset, for folders and archives alike. Captions
come from `metadata.jsonl` or `metadata.csv` (columns file_name, text and/or label), else from a file beside the
picture: `.txt`, `.caption` or `.json`. Labels come from the metadata, else from `.cls` or `.json` beside the pictures,
else from the sub-folder a picture lies in, once there are two different ones. When everything lies under folders (or
in shards) called train, test or validation, they say the split.
"""

from __future__ import annotations

import codecs
import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unicodedata import normalize

from calotype.core.errors import UserError
from calotype.images.decode import UnreadablePictureError
from calotype.images.metadata import LABEL_NAMES, METADATA_NAMES, TEXT_NAMES, Row, first_of, read_metadata
from calotype.images.patterns import SUFFIXES, splits_of, splits_of_files
from calotype.images.source import Picture, Source, Split

_MAX_TEXT, _MAX_JSON = 64 * 2**10, 2**20
_MEND = (
    "give a folder with .jpg, .png or .webp pictures, .parquet files or .tar shards in it (sub-folders are searched); "
    "a .zip, .npy or .npz by its own name"
)

Reader = Callable[[], bytes]
Shard = Mapping[str, Reader]


def describe(shards: Mapping[str, Shard], where: str) -> Source:
    """A Source from file names ('/'-separated, relative) and how to read each.

    A folder or archive is one shard called ""; the name of another comes before those of its pictures, so that two may
    hold the same names. Raises UserError when there is no picture, or metadata that is broken or names none of them.
    """
    files = [
        (shard, name)
        for shard, readers in shards.items()
        for name in sorted(readers)
        if posixpath.splitext(name)[1].lower() in SUFFIXES
    ]
    if not files:
        raise UserError(f"{where}: no pictures in it", _MEND)
    rows, notes = _metadata(shards, files, where)
    labelled = any(row.label is not None for row in rows.values())
    broken: list[str] = []
    for shard, name in files:
        known = rows.get((shard, name), Row(None, None))
        if known.text is None or not labelled:
            beside = _beside(shards[shard], name, broken)
            if beside != Row(None, None):
                rows[shard, name] = Row(known.text or beside.text, known.label if labelled else beside.label)
    labels, splits = _from_folders([name for _, name in files])
    if any(row.label is not None for row in rows.values()):
        labels = [rows[file].label if file in rows else None for file in files]
    if len(shards) > 1 and (by_shard := splits_of_files(list(shards))) is not None:
        split_of = dict(zip(shards, by_shard))
        splits = [split_of[shard] for shard, _ in files]
    pictures = []
    for file, label, split in zip(files, labels, splits):
        shard, name = file
        caption = rows[file].text if file in rows else None
        pictures.append(Picture(_printable(posixpath.join(shard, name)), shards[shard][name], caption, label, split))
    if broken:
        what = "no UTF-8 text or JSON object, passed over"
        notes = (*notes, f"{len(set(broken))} files beside pictures are {what}: {broken[0]}")
    return Source(where, pictures, notes=notes)


def _metadata(
    shards: Mapping[str, Shard], files: Sequence[tuple[str, str]], where: str
) -> tuple[dict[tuple[str, str], Row], tuple[str, ...]]:
    """Rows of all metadata files by shard and picture, and notes for those that are of no use."""
    rows: dict[tuple[str, str], Row] = {}
    again = 0
    for shard, readers in shards.items():
        for file in sorted(name for name in readers if posixpath.basename(name) in METADATA_NAMES):
            try:
                found = read_metadata(file, readers[file]())
            except UnreadablePictureError as error:
                raise UserError(f"{posixpath.join(where, shard, file)}: {error}", "mend or remove it") from None
            for name, row in found:
                key = shard, normalize("NFC", name)
                before = rows.get(key, Row(None, None))
                again += any(old and new and old != new for old, new in zip(before, row))
                rows[key] = Row(row.text or before.text, row.label or before.label)
    if not rows:
        return {}, ()
    # a Mac writes "é" in a file's name as two characters, and an editor as one
    keys = {(shard, name): (shard, normalize("NFC", name)) for shard, name in files}
    matched = {file: rows[key] for file, key in keys.items() if key in rows}
    if not matched:
        _, example = next(iter(rows))
        raise UserError(
            f"{where}: the metadata names no picture that is there (its first is {example!r})",
            "file_name must be the picture's path relative to the metadata file",
        )
    missing = len(rows.keys() - set(keys.values()))
    notes = (
        f"{missing} of {len(rows)} metadata rows name a picture that is not there" * bool(missing),
        f"{again} metadata rows say something else of a picture than an earlier one, and count" * bool(again),
    )
    return matched, tuple(filter(None, notes))


def _from_folders(names: Sequence[str]) -> tuple[list[str | None], list[Split | None]]:
    """Of each: its label (the folder next to the picture), its split (the top folders, if all are called so)."""
    folders = {folder: tuple(folder.split("/")) if folder else () for folder in map(posixpath.dirname, names)}
    shared = posixpath.commonpath([f"/{folder}" for folder in folders]).strip("/")
    depth = len(shared.split("/")) if shared else 0
    tops = list(dict.fromkeys(path[depth] if len(path) > depth else "" for path in folders.values()))
    split_of: dict[str, Split] = dict(zip(tops, splits_of(tops) or ()))
    splits = {folder: split_of[path[depth]] if split_of else None for folder, path in folders.items()}
    depth += bool(split_of)
    labels = {folder: path[-1] if len(path) > depth else None for folder, path in folders.items()}
    if len({label for label in labels.values() if label is not None}) < 2:
        labels = dict.fromkeys(folders)
    where = [posixpath.dirname(name) for name in names]
    return [labels[folder] for folder in where], [splits[folder] for folder in where]


def _printable(name: str) -> str:
    """File systems allow names that are not UTF-8; in an index and on a screen their odd bytes show as '?'."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", errors="replace").decode()
    return name


def _stems(readers: Shard, name: str) -> list[str]:
    """What files beside a picture are called: as it is, or by WebDataset's key, which ends at the first dot.

    So `7.txt` speaks of `7.large.jpg`, unless there is a `7.jpg` too: then of that one alone.
    """
    folder, file = posixpath.split(name)
    stem, key = posixpath.splitext(name)[0], posixpath.join(folder, file.partition(".")[0])
    others = (f"{key}{kind}" for suffix in SUFFIXES for kind in (suffix, suffix.upper()))
    return [stem] if key == stem or any(other in readers for other in others) else [stem, key]


def _beside(readers: Shard, name: str, broken: list[str]) -> Row:
    """What .txt, .caption, .cls and .json beside a picture say; `broken` collects those that cannot be used."""
    text = label = None
    for stem in _stems(readers, name):
        text = text or _words(readers, f"{stem}.txt", broken) or _words(readers, f"{stem}.caption", broken)
        label = label or _words(readers, f"{stem}.cls", broken)
        said = _json(readers, f"{stem}.json", broken)
        text, label = text or first_of(said, TEXT_NAMES), label or first_of(said, LABEL_NAMES)
    return Row(text, label)


def _words(readers: Shard, name: str, broken: list[str]) -> str | None:
    """A small text file, white space collapsed; None where there is none."""
    if name not in readers:
        return None
    try:
        content = readers[name]()[:_MAX_TEXT]
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(content, final=len(content) < _MAX_TEXT)
    except (UnreadablePictureError, UnicodeDecodeError):
        broken.append(name)
        return None
    return " ".join(text.split()) or None


def _json(readers: Shard, name: str, broken: list[str]) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    if name not in readers:
        return {}
    try:
        content = readers[name]()
        said = json.loads(content) if len(content) <= _MAX_JSON else None
    except (UnreadablePictureError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        broken.append(name)
        return {}
    return said
