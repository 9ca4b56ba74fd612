"""What a run was, in words and numbers: facts for the tables, and the commands that go on from it."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from calotype.core.files import read_lines
from calotype.inspection.page import number

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet
    from calotype.inspection.gallery import Model

Rows = list[tuple[str, str]]
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


def minutes(records: Iterable[Mapping[str, Any]], stage: str) -> float:
    """Minutes that a stage was at work, from its records' clock; pauses of a stopped and resumed run are left out."""
    times = [float(r["time"]) for r in records if r.get("stage") == stage and "time" in r]
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    pause = max(60.0, 10 * median(gaps)) if gaps else 0.0
    return sum(gap for gap in gaps if gap <= pause) / 60


def last(records: Sequence[Mapping[str, Any]], stage: str, key: str) -> float | None:
    """The last value logged for `key` in a stage."""
    values = [r[key] for r in records if r.get("stage") == stage and key in r]
    return values[-1] if values else None


def data_rows(pictures: PictureSet) -> Rows:
    held, total = int(pictures.held_out.sum()), len(pictures.names)
    told = "captions" if pictures.has_captions else "class labels" if pictures.has_labels else "pictures only"
    rows = [
        ("Source", pictures.source),
        ("Pictures", f"{total:,}: {total - held:,} to train on, {held:,} held out"),
        ("Size", f"{pictures.pixels.shape[-1]} × {pictures.pixels.shape[-2]} pixels"),
        ("The model is told", told + (f" ({len(pictures.classes)} classes)" if pictures.has_labels else "")),
        ("Refused files", f"{pictures.refused:,}"),
        ("Attribution", pictures.attribution),
        ("Licence", pictures.licence),
    ]
    return [(name, value) for name, value in rows if value]


def stage_rows(records: Sequence[Mapping[str, Any]], stage: str) -> Rows:
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
        ("Last held-out loss", last(records, stage, "held_out_loss"), ""),
    ]
    return rows + [(name, number(value) + unit) for name, value, unit in scores if value is not None]


def model_rows(model: Model) -> Rows:
    """Everything the model says of itself, nested names joined; long lists and texts shortened."""
    return [(name, text) for name, value in _leaves(model.facts) if len(text := _plain(value)) <= 160 and text and name]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ").strip()
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


def version_rows() -> Rows:
    rows = [("Python", platform.python_version()), ("Machine", f"{platform.system()}, {os.cpu_count()} processors")]
    for package in ("calotype", "torch"):
        try:
            rows.insert(0, (package, version(package)))
        except PackageNotFoundError:
            continue
    return rows


def refused_files(run: Path, most: int = 50) -> list[str]:
    """The quarantine list, one line a file: name and reason."""
    records = list(read_lines(run / "data" / "quarantine.jsonl"))
    lines = [f"{record.get('path', '?')}: {record.get('reason', '')}" for record in records[:most]]
    return lines + ([f"and {len(records) - most:,} more"] if len(records) > most else [])


def next_commands(run: Path, model: Model, pictures: PictureSet, word: str) -> list[tuple[str, str]]:
    """(what it does, the command) for the ways on from this run; `word` is a prompt or class it knows."""
    name = shlex.quote(run_name(run))
    data = find(read_config(run), "data")
    source = shlex.quote(str(data if isinstance(data, str) else pictures.source))
    option, argument = (" ", "") if model.captioned else (" --label ", "labels=") if model.classes else ("", "")
    asked = f"{option}{shlex.quote(word)}" if option else ""
    call = f"{argument}[{json.dumps(word, ensure_ascii=False)}], " if option else ""
    return [
        ("More pictures", f"calotype sample {name}{asked} -n 16 --out pictures/"),
        ("How a picture comes about, as a film", f"calotype sample {name}{asked} --film --out pictures/"),
        ("Train on: the same run with more minutes", f"calotype train {source} --out {name} --minutes 30"),
        (
            "Start from this model with pictures of your own",
            f"calotype train my-pictures/ --from {name} --out runs/mine",
        ),
        (
            "In Python",
            f'import calotype\n\nmodel = calotype.load("{run_name(run)}")\n'
            f'pictures = model.sample({call}num_images=4, seed=7)\npictures[0].save("picture.png")',
        ),
    ]
