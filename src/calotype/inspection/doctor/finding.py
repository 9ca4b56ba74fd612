"""What the doctor says: findings, each with its evidence and the remedy, and the diagnosis that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["fault", "warning"]
Kind = Literal["run", "model", "data"]


@dataclass(frozen=True)
class Finding:
    """One cause. `fault`: something is wrong as it is; `warning`: the result is, or will be, worse than it could be.

    `name` is the cause in a word or two; `evidence` the figures that tell of it; `remedy` what to do, as a command
    where there is one.
    """

    name: str
    level: Level
    what: str
    remedy: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True)
class Diagnosis:
    """Findings, the worst first; `checked` names what was looked for, `facts` is what was looked at."""

    kind: Kind
    target: str
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        checks = f"{len(self.checked)} checks"
        if not self.findings:
            return f"nothing amiss in {checks}"
        faults = sum(finding.level == "fault" for finding in self.findings)
        warnings = len(self.findings) - faults
        told = [f"{count} {name}{'s' * (count > 1)}" for count, name in ((faults, "fault"), (warnings, "warning"))]
        return f"{' and '.join(text for text in told if not text.startswith('0'))} in {checks}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "summary": self.summary}
