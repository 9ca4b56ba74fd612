"""The trackers that are known by name: TensorBoard, Weights & Biases, trackio, and those other packages add."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from calotype.core.errors import UserError, nearest

FINISH_SECONDS = 120.0  # that a finished training waits for a slow network; `wandb sync` sends the rest
PLUG_INS = "calotype.trackers"  # the group of entry points: each names a callable Opening -> Tracker


class Tracker(Protocol):
    """One place that shows a run. `id` is its own name of the run, kept for the next process; `where` says how to look.

    An error in any of these ends the tracking there and nothing else.
    """

    id: str
    where: str

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, stage: str, step: int, name: str, path: Path) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Opening:
    """What a tracker is opened with: its own folder, names, the run's settings, and `id` from an earlier process."""

    folder: Path
    project: str
    run: str
    config: Mapping[str, Any]
    id: str = ""


def opener(name: str) -> Callable[[Opening], Tracker]:
    """What opens the tracker of this name. UserError if there is none, or its package is not installed."""
    plug_ins = {found.name: found for found in entry_points(group=PLUG_INS)}
    if name in BOARDS:
        return partial(_import_errors_told, name, BOARDS[name])
    if name not in plug_ins:
        raise UserError(f"there is no tracker {name!r}", nearest(name, {*BOARDS, *plug_ins}))
    try:
        return plug_ins[name].load()
    except Exception as error:
        raise UserError(f"the tracker {name} of {plug_ins[name].value} does not load", str(error)) from error


def _import_errors_told(name: str, board: Callable[[Opening], Tracker], opening: Opening) -> Tracker:
    try:
        return board(opening)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise UserError(f"the tracker {name} needs {missing}", f"pip install 'calotype[{EXTRAS[name]}]'") from error


class TensorBoard:
    """Event files in the run's `trackers/tensorboard`, one a process, written at once.

    TensorBoard's own EventFileWriter leaves that to a thread, which prints a traceback when the disk is full.
    """

    def __init__(self, opening: Opening) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.id = "events"
        self.where = f"tensorboard --logdir {opening.folder}"
        self.event, self.summary = Event, Summary
        opening.folder.mkdir(parents=True, exist_ok=True)
        file = open(opening.folder / f"events.out.tfevents.{time.time_ns()}", "xb")  # noqa: SIM115  close() closes it
        self.writer = RecordWriter(file)
        self.writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._write(step, [self.summary.Value(tag=f"{stage}/{k}", simple_value=v) for k, v in values.items()])

    def image(self, stage: str, step: int, name: str, path: Path) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            width, height = picture.size
        shown = self.summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._write(step, [self.summary.Value(tag=f"{stage}/{name}", image=shown)])

    def _write(self, step: int, values: list[Any]) -> None:
        event = self.event(wall_time=time.time(), step=step, summary=self.summary(value=values))
        self.writer.write(event.SerializeToString())

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandB:
    """One run of Weights & Biases; a process that goes on resumes it. WANDB_MODE=offline is honoured.

    Its own process writes what it is sent about once a second: a kill -9 may lose as much there.
    """

    def __init__(self, opening: Opening) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        opening.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            silent=True,
            host="",  # neither the machine, its packages nor the program are told; its own version W&B notes itself
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=1.0,
            finish_timeout=FINISH_SECONDS,
        )
        self.run = wandb.init(
            project=opening.project,
            name=opening.run,
            id=opening.id or None,
            resume="allow",
            dir=str(opening.folder),
            config=dict(opening.config),
            settings=settings,
        )
        self.picture = wandb.Image
        self.id = self.run.id
        self.where = f"wandb sync {self.run.settings.sync_dir}" if self.run.offline else str(self.run.url)
        self.stages: set[str] = set()

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._log(stage, step, values)

    def image(self, stage: str, step: int, name: str, path: Path) -> None:
        self._log(stage, step, {name: self.picture(str(path))})

    def _log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Each stage has its own axis of steps: W&B's one counter only rises, and the second stage begins anew."""
        if stage not in self.stages:
            self.stages.add(stage)
            self.run.define_metric(f"{stage}/step", hidden=True)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in values.items()})

    def flush(self) -> None:
        """Its own process writes and sends."""

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A run of a trackio project, local unless its variables name a server; a process that goes on resumes it."""

    def __init__(self, opening: Opening) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import trackio

        self.trackio = trackio
        # trackio knows runs by name, and must not join another folder's run of the same name.
        self.id = opening.id or f"{opening.run}-{token_hex(3)}"
        self.where = f"trackio show --project {opening.project}"
        with redirect_stdout(StringIO()):
            trackio.init(
                project=opening.project,
                name=self.id,
                config=dict(opening.config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

    def image(self, stage: str, step: int, name: str, path: Path) -> None:
        self.trackio.log({f"{stage}/{name}": self.trackio.Image(str(path))}, step=step)

    def flush(self) -> None:
        """Its own thread writes."""

    def close(self) -> None:
        with redirect_stdout(StringIO()):  # results of ours are what stdout is for
            self.trackio.finish()


BOARDS: dict[str, Callable[[Opening], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
EXTRAS = {"tensorboard": "board", "wandb": "wandb", "trackio": "trackio"}
