"""Refused files, told in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reason:
    """Files refused for one `reason`: how many, the first of them, and what was said of it."""

    count: int
    example: str
    reason: str

    @property
    def line(self) -> str:
        others = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"{self.example}{others}: {self.reason}"


def group_reasons(refused: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """Lines of quarantine.jsonl by reason, numbers in it aside, the most frequent first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in refused:
        groups.setdefault(re.sub(r"\d+", "0", str(record["reason"])), []).append(record)
    frequent = sorted(groups.values(), key=len, reverse=True)
    return [Reason(len(group), str(group[0]["path"]), str(group[0]["reason"])) for group in frequent]
