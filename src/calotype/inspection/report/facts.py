"""What a run was, in words and numbers: facts for the tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from calotype.core.files import read_lines
from calotype.inspection.report.page import number

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet
    from calotype.inspection.report.drawing import Model

Rows = list[tuple[str, str]]
Records = Sequence[Mapping[str, Any]]
STAGES = {"vae": "autoencoder", "denoiser": "denoiser"}


def run_name(run: Path) -> str:
    """The run's path as the reader would type it: relative where it lies below the working folder."""
    path, here = Path(os.path.abspath(run)), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(run)


def read_config(run: Path) -> dict[str, Any]:
    """The run's config as plain values; {} for a folder that has none (a bundle)."""
    path = run / "config.yaml"
    values = yaml.safe_load(path.read_text()) if path.exists() else {}
    return values if isinstance(values, dict) else {}


def find(values: Any, *keys: str) -> Any:
    """The first scalar under one of `keys`, however deep in nested mappings; shallower ones first."""
    level = [values]
    while level:
        for mapping in (value for value in level if isinstance(value, Mapping)):
            for key in keys:
                if isinstance(mapping.get(key), str | int | float):
                    return mapping[key]
        level = [inner for mapping in level if isinstance(mapping, Mapping) for inner in mapping.values()]
    return None


def minutes(records: Records, stage: str) -> float:
    """Minutes that a stage was at work, from its records' clock; pauses of a stopped and resumed run are left out."""
    times = [float(r["time"]) for r in records if r.get("stage") == stage and "time" in r]
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    pause = max(60.0, 10 * median(gaps)) if gaps else 0.0
    return sum(gap for gap in gaps if gap <= pause) / 60


def spent(records: Records) -> float:
    """Minutes of all stages together."""
    return sum(minutes(records, stage) for stage in STAGES)


def last(records: Records, stage: str, key: str) -> float | None:
    """The last value logged for `key` in a stage."""
    values = [r[key] for r in records if r.get("stage") == stage and key in r]
    return values[-1] if values else None


def data_rows(pictures: PictureSet) -> Rows:
    held, total = int(pictures.held_out.sum()), len(pictures.names)
    kinds = {"captions": pictures.has_captions, "class labels": pictures.has_labels}
    told = " and ".join(kind for kind, there in kinds.items() if there) or "pictures only"
    rows = [
        ("Source", pictures.source),
        ("Pictures", f"{total:,}: {total - held:,} to train on, {held:,} held out"),
        ("Size", f"{pictures.pixels.shape[-1]} × {pictures.pixels.shape[-2]} pixels"),
        ("The model is told", told + (f" ({len(pictures.classes)} classes)" if pictures.has_labels else "")),
        ("Refused files", f"{pictures.refused:,}"),
        ("Copies", pictures.copies),
        ("Attribution", pictures.attribution),
        ("Licence", pictures.licence),
    ]
    return [(name, value) for name, value in rows if value]


def stage_rows(records: Records, stage: str) -> Rows:
    """Steps, minutes, speed and last scores of a stage."""
    steps = [r["step"] for r in records if r.get("stage") == stage and "step" in r]
    if not steps:
        return []
    rows = [("Steps", f"{max(steps):,}"), ("Minutes", f"{minutes(records, stage):.1f}")]
    rates = [r["rate"] for r in records if r.get("stage") == stage and "rate" in r]
    scores: list[tuple[str, float | None, str]] = [
        ("Pictures per second", median(rates) if rates else None, ""),
        ("Held-out PSNR", last(records, stage, "held_out_psnr"), " dB"),
        ("Held-out SSIM", last(records, stage, "held_out_ssim"), ""),
        ("Last training loss", last(records, stage, "loss"), ""),
        ("Error on training pictures", last(records, stage, "train_error"), ""),
        ("Error on held-out pictures", last(records, stage, "held_out_error"), ""),
    ]
    return rows + [(name, number(value) + unit) for name, value, unit in scores if value is not None]


_TOLD_ELSEWHERE = {"data", "versions", "measured", "captioned", "classes", "examples", "held_out_examples", "name"}
_TOLD_ELSEWHERE |= {"vae_steps", "denoiser_steps", "format_version", "scores", "lab", "weights"}


def model_rows(run: Path, model: Model, latent_shape: tuple[int, ...]) -> Rows:
    """Recipe, seed, sizes, and whatever else the model says of itself that no other table does."""
    config = read_config(run)
    rows = [
        ("Recipe", _plain(find(config.get("recipe"), "name"))),
        ("Seed", _plain(find(config, "seed"))),
        ("Latent", _plain(latent_shape)),
    ]
    leaves = _leaves({key: value for key, value in model.facts.items() if key not in _TOLD_ELSEWHERE})
    return [(name, text) for name, text in rows + [(n, _plain(v)) for n, v in leaves] if text and len(text) <= 160]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ").replace("vae", "autoencoder").strip()
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}, ")
        else:
            yield name[:1].upper() + name[1:], value


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        separator = " × " if value and all(isinstance(v, int) for v in value) else ", "
        return separator.join(_plain(v) for v in value)
    return str(value)


def version_rows(model: Model) -> Rows:
    """The versions that trained it, where it says so, and the machine that wrote this page."""
    rows = [(name, _plain(value)) for name, value in _leaves(model.facts.get("versions", {}))]
    return [*rows, ("Machine", f"{platform.system()}, {os.cpu_count()} processors")]


def refused_files(run: Path, most: int = 50) -> list[str]:
    """The quarantine list, one line a file: name and reason."""
    records = list(read_lines(run / "data" / "quarantine.jsonl"))
    lines = [f"{record.get('path', '?')}: {record.get('reason', '')}" for record in records[:most]]
    return lines + ([f"and {len(records) - most:,} more"] if len(records) > most else [])
