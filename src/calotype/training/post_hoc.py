"""Averages of any length, made after training: snapshots of power-function averages, and least squares over them.

Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", section 3 and appendix C.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from calotype.core.config import Config
from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, verify_folder, write_folder, write_json
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import load_tensors, save_tensors

TIME = "time"  # in a snapshot's tensors: the step of the last update
LARGEST_ERROR = 0.2  # of the profile, relative; what is worse is no average of the width asked for
_RIDGE = 1e-6  # two snapshots of one instant share the weight instead of making the system singular
_NAME = re.compile(r"step-(\d{8})")

_Array = NDArray[np.float64]
Width = Annotated[float, Field(gt=0, lt=0.28)]


class PostHocConfig(Config):
    """Which averages are kept, and how often.

    `widths` are relative: the standard deviation of an average's profile as a share of the training so far. Updated
    every `every` steps; both written every `base` steps, or the smallest power-of-two multiple of it of which there are
    at most `keep`.
    """

    widths: tuple[Width, ...] = Field((0.05, 0.10), min_length=1)
    every: int = Field(4, ge=1)
    base: int = Field(250, ge=1)
    keep: int = Field(16, ge=2)

    def stride(self, step: int) -> int:
        """The distance in steps between the snapshots that are kept at `step`."""
        stride = self.base
        while step // stride > self.keep:
            stride *= 2
        return stride

    def due(self, step: int) -> bool:
        """Whether a snapshot belongs after `step` steps."""
        return step > 0 and step % self.stride(step) == 0


def exponent(relative_width: float) -> float:
    """The power of t in the profile of this relative width: the largest root of eq. 56."""
    inverse = relative_width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def save_snapshot(stage_folder: Path, step: int, tensors: Mapping[str, Tensor], config: PostHocConfig) -> Path:
    """Write the averages after `step` steps in half precision; drop those between the ones now due, and later ones.

    What is there depends on the latest step alone, so a run that was stopped and replayed ends with the same files.
    """
    folder = _folder(stage_folder, step)
    named = {name: _half(tensor) for name, tensor in tensors.items() if name != TIME}

    def fill(aside: Path) -> None:
        save_tensors(aside / "averages.safetensors", named)
        widths = sorted({name.partition("/")[0] for name in named})
        write_json(aside / "averages.json", {"time": int(tensors[TIME]), "widths": widths})

    write_folder(folder, fill)
    for old, path in _snapshots(stage_folder).items():
        if old > step or (old % config.stride(step) and old != step):
            path.rename(path.with_name(f".{path.name}.old"))  # so that half of it never looks like a damaged one
    for leftover in folder.parent.glob(".step-*"):  # also of a process that was killed here
        shutil.rmtree(leftover, ignore_errors=True)
    return folder


def reconstruct(
    stage_folder: Path, step: int | None, relative_width: float, reporter: Reporter | None = None
) -> dict[str, Tensor]:
    """The parameters' average of any width after `step` steps, from all whole snapshots; buffers are not in it.

    `step` None is the newest snapshot's. A damaged snapshot is named and left out. UserError where the snapshots do not
    allow this width at this step.
    """
    if not relative_width > 0:
        raise UserError(f"an average's relative width cannot be {relative_width:g}", "give one such as 0.08")
    whole = _whole_snapshots(stage_folder, reporter or Silent())
    if not whole:
        raise UserError(f"{stage_folder} has no whole snapshots of averages", "train with training.post_hoc set")
    step = max(whole) if step is None else step
    keys = [(at, width, time) for at, (time, widths) in whole.items() for width in widths]
    wanted = whole[step][0] if step in whole else step
    weights, error = solve([k[2] for k in keys], [float(k[1]) for k in keys], wanted, relative_width)
    if error > LARGEST_ERROR:
        known = f"widths near {', '.join(sorted({k[1] for k in keys}))} after {', '.join(map(str, whole))} steps can be"
        raise UserError(f"its snapshots allow no average of width {relative_width:g} after {step} steps", known)
    total: dict[str, Tensor] = {}
    for at in whole:
        tensors = load_tensors(_folder(stage_folder, at) / "averages.safetensors")
        for weight, (origin, width, _) in zip(weights.tolist(), keys, strict=True):
            for name in [name for name in tensors if origin == at and name.startswith(f"{width}/")]:
                parameter, part = name.removeprefix(f"{width}/"), tensors[name].float() * weight
                total[parameter] = total[parameter] + part if parameter in total else part
    return total


def solve(times: list[int], widths: list[float], time: int, width: float) -> tuple[_Array, float]:
    """The weights of snapshots (time, width) whose sum comes nearest to the average (time, width), and how near.

    Least squares between profiles (eq. 58) under the condition that the weights add up to 1, so that what never changed
    in training stays as it is. The error is relative to the profile wanted (eq. 59).
    """
    moments, powers = np.asarray(times, np.float64), np.array([exponent(w) for w in widths])
    at, power = np.array(float(time)), np.array(exponent(width))
    gram = _product(moments[:, None], powers[:, None], moments, powers)
    against, own = _product(moments, powers, at, power), float(_product(at, power, at, power))
    n = len(moments)
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = gram / own + _RIDGE * np.eye(n)
    system[n, n] = 0
    weights: _Array = np.linalg.solve(system, np.append(against / own, 1))[:n]
    square = (weights @ gram @ weights - 2 * weights @ against) / own + 1
    return weights, max(0.0, float(square)) ** 0.5


def _product(t_a: _Array, power_a: _Array, t_b: _Array, power_b: _Array) -> _Array:
    """The integral of the product of two profiles (eq. 57)."""
    ratio = (t_a / t_b) ** np.where(t_a < t_b, power_b, -power_a)
    product: _Array = (power_a + 1) * (power_b + 1) * ratio / ((power_a + power_b + 1) * np.maximum(t_a, t_b))
    return product


def _half(tensor: Tensor) -> Tensor:
    """In half precision, where that can hold it."""
    half = tensor.detach().half()
    return half if bool(torch.isfinite(half).all()) else tensor


def _folder(stage_folder: Path, step: int) -> Path:
    return stage_folder / "averages" / f"step-{step:08d}"


def _snapshots(stage_folder: Path) -> dict[int, Path]:
    """Snapshot folders by step, oldest first."""
    found = [path for path in (stage_folder / "averages").glob("step-*") if _NAME.fullmatch(path.name)]
    return {int(path.name[5:]): path for path in sorted(found)}


def _whole_snapshots(stage_folder: Path, reporter: Reporter) -> dict[int, tuple[int, list[str]]]:
    """By step: when each whole snapshot was last updated, and its widths. One that never was holds no average."""
    whole = {}
    for step, folder in _snapshots(stage_folder).items():
        try:
            verify_folder(folder)
            said = read_json(folder / "averages.json")
        except CorruptFileError as error:
            reporter.warn(f"snapshot {stage_folder.name}/averages/{folder.name} is damaged ({error}); left out")
            continue
        if said["time"]:
            whole[step] = said["time"], said["widths"]
    return whole
