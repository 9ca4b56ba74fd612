"""Checkpoints: folders that are whole or not there; the latest is computed, never stored."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, verify_folder, write_folder, write_json
from calotype.core.progress import Reporter
from calotype.core.tensors import load_tensors, load_weights, save_tensors

_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(
    stage_folder: Path,
    step: int,
    network: nn.Module,
    ema: nn.Module,
    optimizers: list[optim.Optimizer],
    state: dict[str, Any],
    keep: int = 3,
    auxiliary: nn.Module | None = None,
) -> Path:
    """Write `step-XXXXXXXX/` and drop all but the newest `keep`. On failure (disk full) the older ones stand."""
    folder = stage_folder / f"step-{step:08d}"

    def fill(aside: Path) -> None:
        save_tensors(aside / "network.safetensors", network.state_dict())
        save_tensors(aside / "ema.safetensors", ema.state_dict())
        if auxiliary is not None:
            save_tensors(aside / "auxiliary.safetensors", auxiliary.state_dict())
        save_tensors(aside / "optimizer.safetensors", _optimizer_tensors(optimizers))
        write_json(aside / "state.json", {"step": step, **state})

    write_folder(folder, fill)
    for old in _checkpoints(stage_folder)[keep:]:
        shutil.rmtree(old)
    return folder


def newest_checkpoint(stage_folder: Path, reporter: Reporter) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are named and passed over."""
    for folder in _checkpoints(stage_folder):
        try:
            verify_folder(folder)
            return folder
        except CorruptFileError as error:
            reporter.warn(f"checkpoint {stage_folder.name}/{folder.name} is damaged ({error}); using the one before it")
    return None


def load_checkpoint(
    folder: Path,
    network: nn.Module,
    ema: nn.Module,
    optimizers: list[optim.Optimizer],
    auxiliary: nn.Module | None = None,
) -> dict[str, Any]:
    """Restore everything in place from a verified checkpoint; returns its state.json."""
    for module, name in ((network, "network.safetensors"), (ema, "ema.safetensors")):
        load_weights(module, load_tensors(folder / name), folder / name)
    if auxiliary is not None:
        load_weights(auxiliary, load_tensors(folder / "auxiliary.safetensors"), folder / "auxiliary.safetensors")
    _restore_optimizers(optimizers, load_tensors(folder / "optimizer.safetensors"))
    state: dict[str, Any] = read_json(folder / "state.json")
    return state


def _checkpoints(stage_folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in stage_folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def _optimizer_tensors(optimizers: list[optim.Optimizer]) -> dict[str, Tensor]:
    """Optimiser state as flat tensors named optimizer/parameter/key. Hyperparameters come from the config."""
    tensors = {}
    for k, optimizer in enumerate(optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                tensors[f"{k}/{index}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def _restore_optimizers(optimizers: list[optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    for k, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, index, key = name.split("/")
            if int(number) == k:
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
