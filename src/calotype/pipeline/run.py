"""A run folder: where everything of one training lies."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_json, write_text
from calotype.recipes import Recipe
from calotype.training.settings import MAY_CHANGE as LOOP_MAY_CHANGE

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


_OURS = re.compile(r"\.lock|\.config\.yaml\.\d+\.tmp")  # what may be there before config.yaml is
MAY_CHANGE = (  # settings of which nothing that was trained depends, but for rounding
    "recipe.vae.gate",
    *(f"recipe.{stage}training.{name}" for stage in ("", "vae.") for name in LOOP_MAY_CHANGE),
)


@dataclass(frozen=True)
class Run:
    """Paths in a run folder and the small files in it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def vae(self) -> Path:
        return self.folder / "vae"

    @property
    def latents(self) -> Path:
        return self.folder / "latents"

    @property
    def captions(self) -> Path:
        return self.folder / "captions"

    @property
    def denoiser(self) -> Path:
        return self.folder / "denoiser"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return Recipe.parse(self.read_config()["recipe"], str(self.config))

    def read_config(self) -> dict[str, Any]:
        """config.yaml as plain values."""
        try:
            values = yaml.safe_load(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            values = None
        if not isinstance(values, dict) or "recipe" not in values:
            raise CorruptFileError(f"{self.config} is not a run's config", "restore it or choose another --out")
        return values

    def _settings(self) -> dict[str, Any]:
        """config.yaml with the settings that came after it at their defaults."""
        return {**self.read_config(), "recipe": self.recipe.model_dump(mode="json")}

    def write_config(self, values: dict[str, Any]) -> None:
        """Fix the run's settings. Once training has begun, other values are refused; before, they replace the old ones.

        So a first try with a wrong path or size can be mended by the next command.
        """
        differing = _differences(self._settings(), values) if self.config.exists() else []
        allowed = [change for change in differing if change[0] in MAY_CHANGE]
        differing = [change for change in differing if change not in allowed]
        if not self.journal.exists():
            if differing:
                shutil.rmtree(self.data, ignore_errors=True)
                shutil.rmtree(self.captions, ignore_errors=True)
            write_text(self.config, yaml.safe_dump(values, sort_keys=False))
        elif allowed and not differing:
            write_text(self.config, yaml.safe_dump(values, sort_keys=False))
        elif differing:
            name, old, new = differing[0]
            raise UserError(
                f"{self.folder} was started with {name} = {old}, not {new}",
                "choose another --out, or give the settings it was started with",
            )

    def facts(self) -> dict[str, Any]:
        """What is known of the run, as it goes into the bundle."""
        path = self.folder / "facts.json"
        return dict(read_json(path)) if path.exists() else {}

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Replace facts.json."""
        write_json(self.folder / "facts.json", facts)

    def load(self, device: str = "auto") -> Pipeline:
        """The run's model."""
        from calotype.pipeline.bundle import load

        return load(self.folder, device)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes off this run. The lock dies with its process, however that ends."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file", "choose another --out")
        others = self.folder.is_dir() and any(not _OURS.fullmatch(path.name) for path in self.folder.iterdir())
        if others and not self.config.exists():
            raise UserError(f"{self.folder} holds other files and is not a run", "choose a new folder with --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.folder} is in use by another process", "wait for it or stop it") from None
            self._clear_leftovers()
            yield

    def _clear_leftovers(self) -> None:
        """Put right what a killed process left aside: half-written files go, a folder half replaced comes back."""
        for folder in (self.folder, self.data, self.vae, self.denoiser, self.samples, self.features):
            for old in folder.glob(".*.old"):  # killed between the two renames of a replacement: put it back
                name = folder / old.name.removeprefix(".").rsplit(".", 2)[0]
                shutil.rmtree(old) if name.exists() else old.rename(name)
            for left in folder.glob(".*.tmp"):
                shutil.rmtree(left) if left.is_dir() else os.unlink(left)


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Settings that differ, as (dotted name, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if old == new else [(name, old, new)]
