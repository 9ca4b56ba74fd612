"""A run's records copied to TensorBoard, Weights & Biases, trackio and plug-ins; `metrics.jsonl` stays the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, read_lines, write_json
from calotype.core.progress import Reporter, Silent
from calotype.training.boards import Opening, Tracker, opener

BLOCK = 256  # records sent on one note of the position, when there are many to make up for


class Trackers:
    """The trackers of one run: each is told every record and picture once, however often the run is stopped.

    `folder` is the run's; `trackers/NAME.json` in it notes what was sent, before it is sent: a kill between the two
    loses one record there, and none is sent twice. Records that a tracker lacks (it joined late, or failed) it gets at
    the start. One that fails in mid-run is given up with one warning: tracking never stops a training.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        project: str,
        run: str,
        config: Mapping[str, Any],
        reporter: Reporter | None = None,
    ) -> None:
        self.reporter = reporter or Silent()
        self.open: list[_Kept] = []
        openers = {name: opener(name) for name in names}  # all names are known before anything is opened
        try:
            for name, open_tracker in openers.items():
                home = folder / "trackers"
                position = _Position.read(home / f"{name}.json")
                opening = Opening(home / name, project=project, run=run, config=config, id=position.id)
                if (tracker := self._opened(name, open_tracker, opening, position)) is not None:
                    self.open.append(_Kept(name, tracker, position))
                    self.reporter.say(f"{name}: {tracker.where}")
        except BaseException:
            self.close()
            raise
        past = [_Message.of(record) for record in read_lines(folder / "metrics.jsonl")] if self.open else []
        for first in range(0, len(past), BLOCK):
            self._send(past[first : first + BLOCK])

    def record(self, record: Mapping[str, Any]) -> None:
        """Send one record of `metrics.jsonl`: scalars as stage/name, lists as stage/name/0 and so on."""
        self._send([_Message.of(record)])

    def image(self, stage: str, step: int, path: Path) -> None:
        """Send one picture file of a stage after `step` steps."""
        self._send([_Message(stage, step, {}, path)])

    def close(self) -> None:
        """Send what still waits and let go."""
        for kept in self.open:
            try:
                kept.tracker.close()
            except Exception as error:
                self.reporter.warn(f"the tracker {kept.name} did not close: {_one_line(error)}")
        self.open = []

    def _opened(
        self, name: str, open_tracker: Callable[[Opening], Tracker], opening: Opening, position: _Position
    ) -> Tracker | None:
        """A run that goes on does so without a tracker that fails to open; a new one says so at once."""
        try:
            tracker = open_tracker(opening)
            if tracker.id != position.id:
                position.id = tracker.id
                position.write()
            return tracker
        except UserError:
            raise
        except Exception as error:
            why = f"does not start: {_one_line(error)}"
            if not opening.id:
                raise UserError(f"the tracker {name} {why}", "set that right, or train without it") from error
            self.reporter.warn(f"going on without the tracker {name}, which {why}")
            return None

    def _send(self, messages: Sequence[_Message]) -> None:
        for kept in list(self.open):
            try:
                kept.send(messages)
            except Exception as error:
                self.open.remove(kept)
                self.reporter.warn(
                    f"going on without the tracker {kept.name}, which failed: {_one_line(error)}; "
                    "metrics.jsonl has everything, and the next start sends what is missing"
                )
                with suppress(Exception):
                    kept.tracker.close()


@dataclass(frozen=True)
class _Message:
    """One record's scalars, or one picture."""

    stage: str
    step: int
    values: Mapping[str, float]
    picture: Path | None = None

    @staticmethod
    def of(record: Mapping[str, Any]) -> _Message:
        flat = dict(_flat(record.items()))
        return _Message(str(record.get("stage", "run")), int(record.get("step", 0)), flat)

    @property
    def channel(self) -> str:
        """Pictures and scalars are counted apart: a preview may be finished after the next record."""
        return f"{self.stage} pictures" if self.picture else self.stage

    @property
    def title(self) -> str:
        """What a picture shows, by its file's name without stage and step: "live" of `vae-00000125-live.png`."""
        stem = self.picture.stem if self.picture else ""
        return stem.replace(f"{self.step:08d}", "").replace(self.stage, "").strip("-_") or "preview"

    @property
    def names(self) -> set[str]:
        return {self.picture.name} if self.picture else set(self.values)

    def without(self, names: set[str]) -> _Message:
        kept = {name: value for name, value in self.values.items() if name not in names}
        return _Message(self.stage, self.step, kept, self.picture)


class _Position:
    """What a tracker has been sent: of each stage the last step, and the names sent at that step."""

    def __init__(self, path: Path, id: str = "", sent: Mapping[str, tuple[int, set[str]]] | None = None) -> None:
        self.path, self.id, self.sent = path, id, dict(sent or {})

    @classmethod
    def read(cls, path: Path) -> _Position:
        if not path.exists():
            return cls(path)
        noted = read_json(path)
        try:
            sent = {channel: (int(step), set(names)) for channel, (step, names) in noted["sent"].items()}
            return cls(path, str(noted["id"]), sent)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise CorruptFileError(
                f"{path} is not a tracker's position", "it was altered; remove it to send everything again"
            ) from None

    def write(self) -> None:
        sent = {channel: [step, sorted(names)] for channel, (step, names) in self.sent.items()}
        write_json(self.path, {"id": self.id, "sent": sent})

    def take(self, message: _Message) -> _Message | None:
        """The part of a message that was not sent before, now noted as sent."""
        step, names = self.sent.get(message.channel, (-1, set()))
        if message.step < step:
            return None
        sent = names if message.step == step else set()
        if not message.names - sent:
            return None
        self.sent[message.channel] = message.step, sent | message.names
        return message.without(sent)


@dataclass
class _Kept:
    """An open tracker and its position."""

    name: str
    tracker: Tracker
    position: _Position

    def send(self, messages: Iterable[_Message]) -> None:
        before = dict(self.position.sent)
        new = [part for message in messages if (part := self.position.take(message)) is not None]
        if not new:
            return
        self.position.write()
        try:
            for message in new:
                if message.picture is not None:
                    self.tracker.image(message.stage, message.step, message.title, message.picture)
                else:
                    self.tracker.scalars(message.stage, message.step, message.values)
            self.tracker.flush()
        except Exception:
            self.position.sent = before  # it may have some of these: better twice than never, after a failure
            self.position.write()
            raise


def _flat(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, float]]:
    """The measurements among a record's values; lists of whole numbers are ids of samples, not measurements."""
    for name, value in items:
        if isinstance(value, list | tuple):
            yield from ((f"{name}/{i}", part) for i, part in enumerate(value) if isinstance(part, float))
        elif isinstance(value, int | float) and name not in ("step", "time"):
            yield name, float(value)


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
