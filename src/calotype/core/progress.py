"""How long work tells what it is doing; the command line shows it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Receives progress. `stage` opens a piece of work, `update` moves it, `say` and `warn` are one line each."""

    def stage(self, name: str, note: str = "") -> None: ...

    def update(
        self,
        done: int,
        total: int | None,
        *,
        rate: float | None = None,
        unit: str = "pictures/s",
        eta: float | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None: ...

    def say(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


class Silent:
    """A reporter that says nothing."""

    def stage(self, name: str, note: str = "") -> None:
        """Nothing to show."""

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
        """Nothing to show."""

    def say(self, message: str) -> None:
        """Nothing to show."""

    def warn(self, message: str) -> None:
        """Nothing to show."""
