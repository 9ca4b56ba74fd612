"""Draw, compare, write down: the record of an evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, write_json
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.features import FeatureExtractor, load_extractor
from calotype.inspection.scores import roles
from calotype.inspection.scores.drawing import Settings, draw
from calotype.inspection.scores.gathered import gather
from calotype.inspection.scores.measure import distances, fidelity
from calotype.inspection.scores.memory import memory
from calotype.inspection.scores.roles import Roles
from calotype.inspection.scores.subject import Subject, denoiser_digest, opened
from calotype.pipeline.bundle import rewrite_bundle

FORMAT = 2  # it grows when a score comes to mean something else
RECORD, TRIED = "evaluation.json", "evaluation-tried.json"
PROMPTS = 512
QUICK_REFERENCE, QUICK_COMPARED = 512, 2048  # pictures for distances, and for memory, where time is short


def evaluate(
    target: str | Path,
    *,
    data: str | None = None,
    prompts: int = PROMPTS,
    num_images: int = 1,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    weights: str = "averaged",
    extractor: str = "efficientnet-lite0",
    thorough: bool = True,
    device: str = "auto",
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score a run, or a model beside `data`; returns the record and writes it to `out`.

    By default that is evaluation.json in its folder, or evaluation-tried.json for other settings than its own.

    The model is asked for `prompts` training captions or classes and as many held-out captions, `num_images` each, with
    its own sampling settings but for those in `sampling`. Scores of a bundle's own settings go into the bundle as well.
    Raises UserError where there is nothing to score or to score with.
    """
    reporter = reporter or Silent()
    network = load_extractor(extractor, choose_device(device))
    with opened(target, data, weights=weights, device=device, reporter=reporter) as subject:
        most = {} if thorough else {"most_reference": QUICK_REFERENCE, "most_compared": QUICK_COMPARED}
        parts = roles.assign(subject.pictures, subject.kind, prompts, seed, **most)
        settings = Settings(seed, num_images, sampling or {}, thorough)
        record = examine(subject, parts, settings, network, reporter)
        tried = bool(sampling) or subject.bundle is None
        write_json(out or subject.folder / (TRIED if tried else RECORD), record)
        if subject.bundle is not None and not sampling:
            if denoiser_digest(subject.bundle) == subject.digest:
                rewrite_bundle(subject.bundle, facts={"scores": record})
            else:
                reporter.warn(f"{subject.bundle} was changed while it was scored: these are not its scores")
    return record


@torch.no_grad()
def examine(
    subject: Subject, parts: Roles, settings: Settings, network: FeatureExtractor, reporter: Reporter
) -> dict[str, Any]:
    """The record, as the module `words` and the report read it."""
    clock = _Clock()
    model, pictures = subject.model, subject.pictures
    reporter.stage("samples", f"{len(parts.asked) * settings.num_images:,} to score")
    made, _ = draw(model, pictures, parts.asked, parts.kind, settings, reporter)
    unseen = None
    if len(parts.unseen):
        later = replace(settings, seed=settings.seed + len(made))
        unseen, _ = draw(model, pictures, parts.unseen, parts.kind, later, reporter)
    clock.lap("sampling")
    reporter.stage("features", network.name)
    gathered = gather(subject, parts, made, unseen, settings, network, reporter)
    clock.lap("features")
    reporter.stage("scores")
    record = {
        "format": FORMAT,
        "model": subject.digest,
        "extractor": {"name": network.name, "sha256": network.sha256, "dim": network.dim},
        "data": pictures.source,
        "made": {
            "count": len(made),
            "seed": settings.seed,
            "asked": parts.kind,
            "weights": subject.weights,
            "num_images": settings.num_images,
            "sampling": {**model.recipe.sampling.model_dump(mode="json"), **settings.sampling},
        },
        "distances": distances(gathered),
        "fidelity": fidelity(gathered, pictures),
        **memory(gathered, pictures),
    }
    clock.lap("scores")
    return record | {"seconds": clock.seconds}


def read_scores(run: Path) -> dict[str, Any] | None:
    """What `evaluate` left in a run, if it is of the model that the run has now, drawing as it does by itself."""
    path = run / RECORD
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        own = denoiser_digest(run / "model"), read_json(run / "model" / "model.json")["recipe"]["sampling"]
        known = record["format"] == FORMAT and (record["model"], record["made"]["sampling"]) == own
    except (CorruptFileError, KeyError, TypeError):
        return None
    return dict(record) if known else None


class _Clock:
    """Seconds of one piece of work after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._began = round(now - self._began, 2), now
