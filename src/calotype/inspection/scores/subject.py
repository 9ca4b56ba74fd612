"""What is evaluated: a model, and the pictures it is measured against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calotype.core.errors import UserError
from calotype.core.files import read_manifest
from calotype.core.progress import Reporter, Silent
from calotype.images.dataset import PictureSet, load_prepared, prepare
from calotype.images.settings import PictureConfig
from calotype.images.source import open_source
from calotype.inspection.scores.roles import Asked
from calotype.pipeline import Pipeline, load
from calotype.pipeline.shipped import locate
from calotype.pipeline.weights import AVERAGED


@dataclass(frozen=True)
class Subject:
    """`folder` is the run's, or the bundle's; `cache` may hold features between two calls.

    `bundle` is the one whose scores these are, which as it was loaded had `digest`; None with other weights or pictures
    than its own.
    """

    model: Pipeline
    pictures: PictureSet
    folder: Path
    cache: Path | None
    bundle: Path | None
    digest: str | None
    weights: str

    @property
    def kind(self) -> Asked:
        """What the model is asked with, as far as these pictures have it."""
        if self.model.captioned and self.pictures.has_captions:
            return "captions"
        return "classes" if self.model.classes and self.pictures.has_labels else "nothing"


@contextmanager
def opened(
    target: str | Path, data: str | None, *, weights: str, device: str, reporter: Reporter | None = None
) -> Iterator[Subject]:
    """A run with its own pictures, or any model with `data`, split as training would have split them.

    UserError where there is no such model, or no pictures to measure it against.
    """
    reporter = reporter or Silent()
    path = Path(target).expanduser()
    own = load_prepared(path / "data") if (path / "config.yaml").is_file() else None
    if own is None and data is None:
        load(target, device)  # what is no model is told so first
        raise UserError(f"{target} comes without pictures to measure it against", "give them with --data")
    place = locate(target)
    shipped = place is not None and place.is_shipped
    bundle = _bundle(path) if weights == AVERAGED and data is None and not shipped else None
    digest = None if bundle is None else denoiser_digest(bundle)
    model = load(target, device, weights=weights)
    told = model.facts.get("weights", weights) if weights == AVERAGED else weights  # the lab may have chosen others
    if own is not None and data is None:
        yield Subject(model, own, path, path / "features", bundle, digest, told)
        return
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="calotype-") as aside:
        source = open_source(data, size=model.size)
        pictures = prepare(source, model.size, Path(aside), reporter, PictureConfig())
        folder = path if path.is_dir() and not shipped else Path.cwd()  # the package's own models stay as they are
        yield Subject(model, pictures, folder, None, bundle, digest, told)


def _bundle(path: Path) -> Path | None:
    """Where a run's or model's bundle is."""
    return next((folder for folder in (path / "model", path) if (folder / "model.json").is_file()), None)


def denoiser_digest(bundle: Path) -> str | None:
    """sha256 of a bundle's denoiser, by which scores are known to be of this one; None where it has no manifest."""
    if not (bundle / "manifest.json").is_file():
        return None
    return read_manifest(bundle).get("denoiser.safetensors", {}).get("sha256")
