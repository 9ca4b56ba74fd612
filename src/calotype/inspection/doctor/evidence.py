"""What there is to judge by: everything of a run, a model or a set of pictures, read when it is asked for.

Nothing here writes below what is looked at, so that a training that is under way does not notice.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, read_lines
from calotype.core.progress import Reporter
from calotype.core.shards import ShardStore
from calotype.images.dataset import FACTS, PictureSet, load_prepared, prepare
from calotype.images.settings import PictureConfig
from calotype.images.sizing import natural_size
from calotype.images.source import open_source
from calotype.inspection.doctor.finding import Finding, Kind
from calotype.inspection.doctor.probe import LEAST, Drawn, Trial, draw, try_out
from calotype.latents import LatentSet, read_statistics
from calotype.latents.cache import open_rows
from calotype.latents.health import Health, examine
from calotype.pipeline.bundle import load_bundle, model_of_run
from calotype.pipeline.conditions import Conditions, prepare_conditions
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.run import Run
from calotype.pipeline.shipped import locate
from calotype.recipes import Recipe, get_recipe
from calotype.training.checkpoint import newest_checkpoint, read_checkpoint
from calotype.training.journal import Journal, Segment

Record = dict[str, Any]


class Unknown(Exception):
    """What a check needs is not there: it has nothing to say."""


@dataclass
class Evidence:
    """A run's folder, a bundle or a set of pictures. Every property raises `Unknown` where there is no such thing."""

    kind: Kind
    path: Path
    data_source: str
    device: torch.device
    reporter: Reporter
    held: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def run(self) -> Run:
        if self.kind != "run":
            raise Unknown
        return Run(self.path)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the run was started with, or that a bundle has."""
        return self.model.recipe if self.kind == "model" else self.run.recipe

    @cached_property
    def name(self) -> str:
        """The target as it may be typed."""
        return shlex.quote(str(self.path))

    @cached_property
    def again(self) -> str:
        """The command that continues this run, but for --minutes or --steps."""
        config = self.run.read_config()
        recipe, data = self.recipe, str(config.get("data") or "DATA")
        plain = get_recipe(recipe.name, recipe.size).model_dump(mode="json")
        words = ["calotype", "train", data, "--out", str(self.path)]
        words += ["--recipe", recipe.name] * (recipe.name != "calotype")
        words += ["--size", str(recipe.size)] * (data != "openmoji")
        words += ["--seed", str(recipe.seed)] * bool(recipe.seed)
        words += ["--from", str(config["from"])] if config.get("from") else []
        changed = changes(plain, recipe.model_dump(mode="json"))
        elsewhere = config.get("from") or recipe.vae.pretrained or recipe.vae.taken
        for name, value in changed.items():
            if name != "seed" and not (elsewhere and name.startswith("vae.network")):
                words += ["--set", f"{name}={json.dumps(value)}"]
        return shlex.join(words)

    @cached_property
    def data_words(self) -> str:
        """The data as it was given, for a command."""
        return shlex.quote(self.data_source if self.kind == "data" else str(self.run.read_config().get("data", "DATA")))

    @cached_property
    def budget(self) -> str:
        """What the run was last given, as options."""
        requests = self.journal.requests()
        if not requests:
            raise Unknown
        return str(requests[-1])

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.run.journal)

    @cached_property
    def records(self) -> list[Record]:
        """metrics.jsonl."""
        return [record for record in read_lines(self.run.metrics) if isinstance(record.get("step"), int)]

    def course(self, stage: str, key: str) -> list[tuple[int, float]]:
        """(step, value) of what was logged under `key`, in order."""
        rows = [r for r in self.records if r.get("stage") == stage]
        found = [(row["step"], float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
        if not found:
            raise Unknown
        return found

    def segment(self, stage: str) -> Segment:
        """The last segment of a stage."""
        segments = self.journal.segments(stage)
        if not segments:
            raise Unknown
        return segments[-1]

    def steps(self, stage: str) -> int:
        """How far a stage's newest checkpoint is."""
        return max((step for step, _ in self.states(stage)), default=0)

    def states(self, stage: str) -> list[tuple[int, Record]]:
        """state.json of a stage's checkpoints, in order of steps; those that cannot be read are passed over."""
        found = []
        for path in (self.path / stage).glob("step-*/state.json"):
            try:
                state = read_json(path)
            except (CorruptFileError, OSError):
                continue
            if isinstance(state, dict) and isinstance(state.get("step"), int):
                found.append((int(state["step"]), state))
        return sorted(found, key=lambda pair: pair[0])

    @cached_property
    def running(self) -> bool:
        """Whether a process is at work in the run's folder."""
        try:
            with open(self.run.folder / ".lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except FileNotFoundError:
            return False
        except OSError:
            return True

    @cached_property
    def pictures(self) -> PictureSet:
        """The pictures of the run, or those that are to be looked at."""
        found = load_prepared(self.data_folder)
        if found is None:
            raise Unknown
        return found

    @cached_property
    def data_folder(self) -> Path:
        """Where the prepared pictures are; those of a set are prepared aside."""
        if self.kind == "run":
            return self.run.data
        if self.kind == "model":
            raise Unknown
        folder = Path(self.held.enter_context(tempfile.TemporaryDirectory(prefix="calotype-doctor-")))
        size = natural_size(self.data_source)
        config = PictureConfig(max_refused=1.0)  # what would stop a training is for the findings to say
        prepare(open_source(self.data_source, size=size), size, folder, _Quiet(self.reporter), config, least=1)
        return folder

    @cached_property
    def data_facts(self) -> Record:
        """data.json of the prepared pictures."""
        if len(self.pictures) == 0:
            raise Unknown
        facts = read_json(self.data_folder / FACTS)
        return facts if isinstance(facts, dict) else {}

    @cached_property
    def latents(self) -> LatentSet:
        """The cached latents of the run's pictures."""
        statistics = read_statistics(self.run.latents)
        stores = [path for path in self.run.latents.glob("*") if (path / "key.json").is_file()]
        if statistics is None or len(stores) != 1:
            raise Unknown
        try:
            return LatentSet(open_rows(ShardStore(stores[0]), self.pictures.keys), statistics)
        except CorruptFileError:
            raise Unknown from None

    @cached_property
    def model(self) -> Pipeline:
        """The model to be judged: the bundle, or of an unfinished run what its checkpoints hold."""
        if self.kind == "data":
            raise Unknown
        folder = self.path if self.kind == "model" else self.run.model
        if (folder / "model.json").is_file():
            return load_bundle(folder, self.device)
        if self.steps("denoiser") == 0:
            raise Unknown
        try:
            return model_of_run(self.mirror, self.device)
        except UserError as error:  # of the run, not of the links to it
            seen, own = str(self.mirror.folder), str(self.path)
            raise type(error)(error.what.replace(seen, own), error.mend.replace(seen, own)) from None

    @cached_property
    def mirror(self) -> Run:
        """The run seen through links: what assembles a model may write there, and the run stays as it is."""
        aside = Path(self.held.enter_context(tempfile.TemporaryDirectory(prefix="calotype-doctor-"))) / "run"
        aside.mkdir()
        for path in self.run.folder.iterdir():
            if path.name not in ("captions", ".lock"):
                (aside / path.name).symlink_to(path.absolute())
        for path in self.run.captions.rglob("*"):  # a folder of its own: what is damaged is removed from it
            if path.is_file():
                link = aside / path.relative_to(self.run.folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
        return Run(aside)

    @cached_property
    def conditions(self) -> Conditions:
        """What each picture of the run is asked to be."""
        return prepare_conditions(self.mirror, self.run.recipe, self.pictures, _Quiet(self.reporter))

    @cached_property
    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The denoiser's weights in its newest checkpoint: "network" and "ema"."""
        newest = newest_checkpoint(self.run.denoiser, _Quiet(self.reporter))
        if newest is None:
            raise Unknown
        checkpoint = read_checkpoint(newest)
        if checkpoint.step == 0:
            raise Unknown
        return checkpoint.tensors

    @cached_property
    def trial(self) -> Trial:
        """The model's errors on latents of the run's pictures, asked rightly, wrongly and for nothing."""
        if self.steps("denoiser") == 0 or len(self.pictures.train_ids) < LEAST:
            raise Unknown
        return try_out(self.model, self.latents, self.conditions, self.pictures, self.weights)

    @cached_property
    def drawn(self) -> Drawn:
        """Samples, made as the model would make them, beside what is real."""
        if self.kind == "run" and self.steps("denoiser") == 0:
            raise Unknown
        return draw(self.model, None if self.kind == "model" else self.pictures)

    @cached_property
    def health(self) -> Health:
        """What the gate between the stages makes of the latents, with the codec of the model."""
        given = any(segment.end == 0 for segment in self.journal.segments("vae")[-1:])  # it came trained, and stayed so
        return examine(self.model.codec, self.latents, self.pictures, given=given)


def changes(plain: Any, values: Any, name: str = "") -> dict[str, Any]:
    """Dotted names of the settings that are not a recipe's own, and their values."""
    if isinstance(plain, dict) and isinstance(values, dict) and values.keys() == plain.keys():
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= changes(plain[key], value, f"{name}.{key}" if name else key)
        return found
    return {} if plain == values else {name: values}


class _Quiet:
    """Hands progress on and keeps the rest to itself: what is amiss becomes a finding."""

    def __init__(self, reporter: Reporter) -> None:
        self.stage, self.update = reporter.stage, reporter.update

    def say(self, message: str) -> None:
        """Not told."""

    def warn(self, message: str) -> None:
        """Not told."""


def gather(target: str | Path, device: torch.device, reporter: Reporter) -> Evidence:
    """Say what `target` is: a run's folder, a bundle's, a shipped model, else a set of pictures (UserError if none)."""
    place, path = locate(target), Path(target).expanduser()
    if place is not None and path.exists() and not place.folder.resolve().is_relative_to(path.resolve()):
        place = None  # pictures in a folder of the user's that is called like a shipped model
    kind: Kind = "data"
    if place is not None:
        kind, path = place.kind, place.folder
    elif (path / "journal.jsonl").is_file():
        raise UserError(f"{path} has lost its config.yaml", "restore it: it says how this run was trained")
    evidence = Evidence(kind, path, str(target), device, reporter)
    if kind == "data":
        try:
            _ = evidence.pictures  # what is no set of pictures is refused here, and leaves nothing
        except BaseException:
            evidence.held.close()
            raise
    return evidence


Check = Callable[[Evidence], Iterable[Finding]]
Checks = Mapping[str, Check]
