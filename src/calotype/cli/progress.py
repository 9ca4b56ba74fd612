"""Progress on stderr: live rows on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from calotype.cli.output import one_line
from calotype.core.progress import Reporter

if TYPE_CHECKING:
    from rich.progress import TaskID


def clock(seconds: float) -> str:
    """Seconds as 0:05, 12:34 or 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def describe(
    done: int,
    total: int | None,
    *,
    rate: float | None,
    unit: str,
    eta: float | None,
    losses: Mapping[str, float] | None,
) -> str:
    """How far, how fast, how long still, and the losses, as one phrase."""
    parts = [f"{done:,}/{total:,}" if total is not None else f"{done:,}"]
    if rate is not None:
        parts.append(f"{rate:.3g} {unit}" if rate < 100 else f"{rate:,.0f} {unit}")
    if eta is not None:
        parts.append(f"{clock(eta)} left")
    parts += [f"{name} {value:.3g}" for name, value in (losses or {}).items()]
    return ", ".join(parts)


class PlainReporter:
    """Lines of text: one at the start of a stage, one about every `interval` seconds, one when it is complete."""

    def __init__(self, stream: TextIO, *, interval: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._interval, self._now = stream, interval, now
        self._stage, self._last = "", now()

    def stage(self, name: str, note: str = "") -> None:
        self._stage, self._last = name, self._now()
        self._write(f"{name}: {note}" if note else name)

    def update(
        self,
        done: int,
        total: int | None,
        *,
        rate: float | None = None,
        unit: str = "pictures/s",
        eta: float | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        moment = self._now()
        if moment - self._last >= self._interval or done == total:
            self._last = moment
            phrase = describe(done, total, rate=rate, unit=unit, eta=eta, losses=losses)
            self._write(f"{self._stage}: {phrase}" if self._stage else phrase)

    def say(self, message: str) -> None:
        self._write(message)

    def warn(self, message: str) -> None:
        self._write(f"warning: {message}")

    def _write(self, text: str) -> None:
        self._stream.write(one_line(text) + "\n")
        self._stream.flush()


class RichReporter:
    """Live rows on a terminal, one a stage: bar, how far, how fast, how long still, losses."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn(
                "{task.fields[phrase]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=Console(file=stream),
            expand=True,
            refresh_per_second=2,
        )
        self._task: TaskID | None = None
        self._progress.start()

    def close(self) -> None:
        """Leave the rows as they are and give the terminal back."""
        self._progress.stop()

    def stage(self, name: str, note: str = "") -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._row(name, note)

    def _row(self, name: str, note: str = "") -> TaskID:
        self._task = self._progress.add_task(one_line(name), total=None, phrase=one_line(note))
        return self._task

    def update(
        self,
        done: int,
        total: int | None,
        *,
        rate: float | None = None,
        unit: str = "pictures/s",
        eta: float | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        task = self._row("working") if self._task is None else self._task
        phrase = describe(done, total, rate=rate, unit=unit, eta=eta, losses=losses)
        self._progress.update(task, completed=done, total=total, phrase=phrase)

    def say(self, message: str) -> None:
        self._print(message)

    def warn(self, message: str) -> None:
        self._print(f"warning: {message}", style="yellow")

    def _print(self, message: str, style: str = "") -> None:
        from rich.text import Text

        self._progress.console.print(Text(one_line(message), style=style))


@contextmanager
def open_reporter(stream: TextIO | None = None) -> Iterator[Reporter]:
    """The reporter that suits stderr; the terminal is given back however the work ends."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainReporter(stream)
        return
    reporter = RichReporter(stream)
    try:
        yield reporter
    finally:
        reporter.close()
