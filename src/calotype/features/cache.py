"""Features that are kept: those of a run's pictures are computed once."""

from __future__ import annotations

import re
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

FORMAT = 1  # of a cache file; it grows too when an extractor makes its pictures ready in another way
PICTURES_AT_ONCE = 128


def cached_features(
    extractor: FeatureExtractor, pixels: Tensor, folder: Path, *, reporter: Reporter | None = None
) -> Tensor:
    """Features (n, dim) of pictures uint8 (n, 3, h, w): read from `folder`, or computed and kept there.

    A file there holds good for one extractor (by name and sha256) and one set of pictures (by their bytes). One that
    is damaged counts for nothing, and a folder that cannot be written only costs the time of the next call.
    """
    key = _key(extractor, pixels)
    path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', extractor.name.lower()).strip('-')[:40]}-{key[:16]}.safetensors"
    found = _read(path, key, (len(pixels), extractor.dim))
    if found is None:
        found = _computed(extractor, pixels, reporter)
        with suppress(OSError):
            write_bytes(path, save({"features": found, "check": _check(key, found)}))
    return found


def _key(extractor: FeatureExtractor, pixels: Tensor) -> str:
    described = f"{FORMAT} {extractor.name} {extractor.sha256} {pixels.dtype} {tuple(pixels.shape)}\n"
    digest = sha256(described.encode())
    for part in pixels.split(1024):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _computed(extractor: FeatureExtractor, pixels: Tensor, reporter: Reporter | None) -> Tensor:
    features = torch.empty(len(pixels), extractor.dim)
    for start in range(0, len(pixels), PICTURES_AT_ONCE):
        part = pixels[start : start + PICTURES_AT_ONCE]
        features[start : start + len(part)] = extractor(part.float() / 127.5 - 1)
        if reporter is not None:
            reporter.update(start + len(part), len(pixels))
    return features


def _read(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """What was kept under this very key, whole; else None."""
    try:
        kept = load_tensors(path)
    except CorruptFileError:
        return None
    features, check = kept.get("features"), kept.get("check")
    if features is None or check is None or features.shape != shape or features.dtype != torch.float32:
        return None
    return features if torch.equal(check, _check(key, features)) else None


def _check(key: str, features: Tensor) -> Tensor:
    """sha256 over the key and the features, uint8 (32,): a flipped bit would otherwise be a score."""
    digest = sha256(key.encode())
    digest.update(features.contiguous().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
