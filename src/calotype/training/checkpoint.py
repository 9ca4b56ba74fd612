"""Checkpoints: folders that are whole or not there; the latest is computed, never stored."""

from __future__ import annotations

import math
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, read_manifest, reading, verify_file, verify_folder, write_folder, write_json
from calotype.core.progress import Reporter
from calotype.core.tensors import load_tensors, save_tensors

Best = tuple[str, Literal["min", "max"]]  # a measure, and which end of it is good
_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})", re.ASCII)
_STATE = "state.json"
_OWN = ("step", "identity", "measures")  # keys of state.json that are the checkpoint's own


@dataclass(frozen=True)
class Checkpoint:
    """A stage at one instant: all that the next step depends on."""

    step: int
    tensors: dict[str, dict[str, Tensor]]  # by file stem: network, ema, optimizer, and what else a stage has
    state: dict[str, Any]  # JSON
    identity: str = ""  # of stage, seed and settings: another run's checkpoint never loads silently
    measures: dict[str, float] = field(default_factory=dict)  # of a validation at exactly this step


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept."""

    last: int = 3  # the newest so many
    best: tuple[Best, ...] = ()  # and the one with the best of each of these measures


def save_checkpoint(stage_folder: Path, checkpoint: Checkpoint, retention: Retention) -> Path:
    """Write `step-XXXXXXXX/`, then drop what `retention` does not keep. On failure (disk full) the older ones stand.

    Checkpoints of later steps are dropped too: training went back behind them, and two futures must not mix.
    """
    folder = stage_folder / f"step-{checkpoint.step:08d}"
    own = {key: getattr(checkpoint, key) for key in _OWN}
    if clash := own.keys() & checkpoint.state.keys():
        raise ValueError(f"a checkpoint's state may not name {', '.join(sorted(clash))} itself")
    for leftover in (*stage_folder.glob(".step-*.tmp"), *stage_folder.glob(".step-*.old")):
        shutil.rmtree(leftover, ignore_errors=True)  # of processes that were killed

    def fill(aside: Path) -> None:
        for stem, tensors in checkpoint.tensors.items():
            save_tensors(aside / f"{stem}.safetensors", tensors)
        write_json(aside / _STATE, {**own, **checkpoint.state})

    write_folder(folder, fill)
    _prune(stage_folder, checkpoint, retention)
    return folder


def newest_checkpoint(stage_folder: Path, reporter: Reporter, identity: str | None = None) -> Path | None:
    """The newest checkpoint that verifies (and is of this identity, if given); others are named and passed over."""
    for folder in _checkpoints(stage_folder):
        try:
            verify_folder(folder, sealed=True)
            its_own = _state(folder)["identity"]
        except CorruptFileError as error:
            reporter.warn(f"checkpoint {stage_folder.name}/{folder.name} is damaged ({error}); using the one before it")
            continue
        if identity is None or its_own == identity:
            return folder
        reporter.warn(f"checkpoint {stage_folder.name}/{folder.name} is of another run or stage; using the one before")
    return None


def best_checkpoint(stage_folder: Path, best: Best, identity: str | None = None) -> Path | None:
    """The whole checkpoint (of this identity, if given) with the best measure; None when none was measured."""
    known = _readable(stage_folder)
    for folder in _ranked([one for one in known if identity in (None, known[one]["identity"])], known, best):
        try:
            verify_folder(folder, sealed=True)
        except CorruptFileError:
            continue
        return folder
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint with its tensors on the CPU; CorruptFileError for anything not whole."""
    verify_folder(folder, sealed=True)
    state, listed = _state(folder), map(Path, read_manifest(folder))
    tensors = {path.stem: load_tensors(folder / path) for path in listed if path.suffix == ".safetensors"}
    step, identity, measures = (state.pop(key) for key in _OWN)
    return Checkpoint(step, tensors, state, identity, measures)


def _checkpoints(stage_folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in stage_folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _state(folder: Path) -> dict[str, Any]:
    """state.json, which must be as the manifest says and of the step of its folder's name."""
    path, listed = folder / _STATE, read_manifest(folder)
    if _STATE not in listed:
        raise CorruptFileError(f"{path} is not in its folder's manifest")
    verify_file(path, listed[_STATE])
    with reading(path):
        state = read_json(path)
    if not isinstance(state, dict) or state.get("step") != _step(folder):
        raise CorruptFileError(f"{path} is of another step")
    return {"identity": "", "measures": {}, **state}


def _readable(stage_folder: Path) -> dict[Path, dict[str, Any]]:
    """state.json of the checkpoints that have a whole one, newest first."""
    found = {}
    for folder in _checkpoints(stage_folder):
        with suppress(CorruptFileError):
            found[folder] = _state(folder)
    return found


def _ranked(folders: list[Path], known: dict[Path, dict[str, Any]], best: Best) -> list[Path]:
    """Those with a finite value of the measure, the best first; of equals as they came."""
    measure, direction = best
    values = {folder: known[folder]["measures"].get(measure, math.nan) for folder in folders}
    measured = [folder for folder in folders if math.isfinite(values[folder])]
    return sorted(measured, key=lambda folder: values[folder] if direction == "min" else -values[folder])


def _prune(stage_folder: Path, saved: Checkpoint, retention: Retention) -> None:
    """Drop what is not kept; what is another's, or cannot be read, is not this run's to drop."""
    known = _readable(stage_folder)  # once: what cannot be read a second time must not lose its rank
    ours = [folder for folder in known if known[folder]["identity"] == saved.identity]
    until_now = [folder for folder in ours if _step(folder) <= saved.step]
    kept = until_now[: max(retention.last, 1)]
    for best in retention.best:
        kept += _ranked(until_now, known, best)[:1]
    for folder in ours:
        if folder not in kept:
            with suppress(OSError):  # the new one stands; the next save tries again
                _drop(folder)


def _drop(folder: Path) -> None:
    """Delete a folder; renamed first, so that half of it never looks like a checkpoint."""
    os.rename(folder, aside := folder.with_name(f".{folder.name}.{os.getpid()}.tmp"))
    shutil.rmtree(aside, ignore_errors=True)
