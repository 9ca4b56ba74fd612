"""Which of a run's weights to draw with: the averaged ones, the live ones, the best so far, or any average."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError, nearest
from calotype.core.files import read_json
from calotype.core.progress import Silent
from calotype.training.checkpoint import best_checkpoint, newest_checkpoint, read_checkpoint
from calotype.training.denoiser_objective import DenoiserObjective
from calotype.training.post_hoc import reconstruct

AVERAGED = "averaged"
KINDS = (AVERAGED, "live", "best")


def vae_weights(stage_folder: Path) -> dict[str, Tensor]:
    """Averaged weights of the first stage as far as it is."""
    return read_checkpoint(_newest(stage_folder)).tensors["ema"]


def denoiser_weights(stage_folder: Path, which: str | float = AVERAGED) -> dict[str, Tensor]:
    """Weights of the denoiser, by the names of its network.

    `which`: "averaged" as in the bundle; "live", not averaged; "best", averaged at the step with the lowest kernel
    distance or, where none was taken, the lowest held-out error; a number, the average of that relative width (eqs.
    56-58), made of the snapshots up to the newest. UserError for what is not there.
    """
    newest = read_checkpoint(_newest(stage_folder))
    if newest.step == 0:
        raise UserError(f"{stage_folder.parent} has no model yet", "give the same train command again to continue it")
    width = _number(which)
    if width is not None:
        return newest.tensors["ema"] | reconstruct(stage_folder, None, width)
    if which == "best":
        for measure in DenoiserObjective.best:
            if (best := best_checkpoint(stage_folder, measure)) is not None:
                return read_checkpoint(best).tensors["ema"]
        raise UserError(f"{stage_folder.parent} has no checkpoint with a validation", "leave --weights out")
    if which not in KINDS:
        raise UserError(
            f"unknown weights '{which}'",
            f"{nearest(str(which), KINDS)} (or a number, such as 0.08: an average's width)",
        )
    return newest.tensors["network" if which == "live" else "ema"]


def spent_on(stage_folder: Path) -> float:
    """Seconds that a stage has taken so far, over all its processes."""
    state = _newest_state(stage_folder)
    return float(state.get("spent", 0.0))


def progress_of(stage_folder: Path) -> tuple[int, float]:
    """The steps that a stage has taken, and the seconds in the segment it is in."""
    state = _newest_state(stage_folder)
    return int(state.get("step", 0)), float(state.get("spent", 0.0)) - float(state.get("segment_began", 0.0))


def _newest(stage_folder: Path) -> Path:
    checkpoint = newest_checkpoint(stage_folder, Silent())
    if checkpoint is None:
        raise UserError(f"{stage_folder.parent} has no model yet", "give the same train command again to continue it")
    return checkpoint


def _newest_state(stage_folder: Path) -> dict[str, float]:
    checkpoint = newest_checkpoint(stage_folder, Silent())
    state = {} if checkpoint is None else read_json(checkpoint / "state.json")
    if not isinstance(state, dict):
        raise CorruptFileError(f"{checkpoint} is not whole", "remove it: the one before it is used then")
    return state


def _number(which: str | float) -> float | None:
    try:
        return float(which)
    except ValueError:
        return None
