"""Features that are kept, a vector a picture: those of a run's pictures are computed once, whoever asks for them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.files import write_bytes
from calotype.core.progress import Reporter
from calotype.core.tensors import load_tensors
from calotype.features.extractors import FeatureExtractor

FORMAT = 2  # of a cache file; it grows too when an extractor makes its pictures ready in another way
PICTURES_AT_ONCE = 128
MOST_KEPT = 20_000  # vectors of an extractor; those that were not asked for last go first


def cached_features(
    extractor: FeatureExtractor, pixels: Tensor, folder: Path, *, reporter: Reporter | None = None
) -> Tensor:
    """Features (n, dim) of pictures uint8 (n, 3, h, w): read from `folder`, or computed and kept there.

    A file there is of one extractor (by name and sha256) and knows its pictures by their bytes. One that is damaged
    counts for nothing, and a folder that cannot be written only costs the time of the next call.
    """
    key = sha256(f"{FORMAT} {extractor.name} {extractor.sha256}".encode()).hexdigest()
    path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', extractor.name.lower()).strip('-')[:40]}-{key[:16]}.safetensors"
    known, asked = _read(path, key, extractor.dim), _digests(pixels)
    missing = {digest: k for k, digest in enumerate(asked) if digest not in known}
    if missing:
        computed = _computed(extractor, pixels[list(missing.values())], reporter)
        known |= dict(zip(missing, computed, strict=True))
        wanted = set(asked)
        latest = dict(sorted(known.items(), key=lambda item: item[0] in wanted))
        with suppress(OSError):
            _write(path, key, dict(list(latest.items())[-max(MOST_KEPT, len(wanted)) :]))
    return torch.stack([known[digest] for digest in asked]) if asked else torch.zeros(0, extractor.dim)


def _digests(pixels: Tensor) -> list[bytes]:
    """sha256 of every picture."""
    shape = f"{pixels.dtype} {tuple(pixels.shape[1:])}\n".encode()
    return [sha256(shape + picture.cpu().contiguous().numpy().tobytes()).digest() for picture in pixels]


def _computed(extractor: FeatureExtractor, pixels: Tensor, reporter: Reporter | None) -> Tensor:
    features, began = torch.empty(len(pixels), extractor.dim), time.monotonic()
    for start in range(0, len(pixels), PICTURES_AT_ONCE):
        part = pixels[start : start + PICTURES_AT_ONCE]
        features[start : start + len(part)] = extractor(part.float() / 127.5 - 1)
        if reporter is not None:
            done, spent = start + len(part), max(time.monotonic() - began, 1e-9)
            reporter.update(done, len(pixels), rate=done / spent, eta=(len(pixels) - done) * spent / done)
    return features


def _write(path: Path, key: str, known: Mapping[bytes, Tensor]) -> None:
    pictures = torch.frombuffer(bytearray(b"".join(known)), dtype=torch.uint8).view(-1, 32)
    features = torch.stack(list(known.values()))
    kept = {"pictures": pictures, "features": features, "check": _check(key, pictures, features)}
    write_bytes(path, save(kept))


def _read(path: Path, key: str, dim: int) -> dict[bytes, Tensor]:
    """What was kept for this very extractor, by the pictures' digests; nothing where it is not whole."""
    try:
        kept = load_tensors(path)
        pictures, features, check = kept["pictures"], kept["features"], kept["check"]
    except (CorruptFileError, KeyError):
        return {}
    shaped = pictures.shape == (len(features), 32) and features.shape == (len(features), dim)
    if not shaped or features.dtype != torch.float32 or not torch.equal(check, _check(key, pictures, features)):
        return {}
    return {row.tobytes(): features[k] for k, row in enumerate(pictures.numpy())}


def _check(key: str, pictures: Tensor, features: Tensor) -> Tensor:
    """sha256 over all of it, uint8 (32,): a flipped bit would otherwise be a score."""
    digest = sha256(key.encode())
    for part in (pictures, features):
        digest.update(part.contiguous().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
