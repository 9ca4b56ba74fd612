"""One way of drawing with a trained model: weights and sampling settings, and what it is called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from calotype.recipes import SamplingSection
from calotype.sampling import get_sampler

OWN = "own"  # the weights that the model draws with now


@dataclass(frozen=True)
class Setting:
    """`weights`: "own", "live", or the relative width of an average, as "0.05". `sampling`: all of the section."""

    weights: str
    sampling: SamplingSection

    def but(self, *, weights: str | None = None, **changes: Any) -> Setting:
        """The same with some changes. UserError for what the section refuses."""
        sampling = SamplingSection.parse({**self.sampling.model_dump(), **changes}, "sampling")
        get_sampler(sampling.sampler)
        return Setting(weights or self.weights, sampling)

    def differences(self, other: Setting) -> dict[str, Any]:
        """The settings that `other` has otherwise, with the values here."""
        theirs = other.plain()
        return {name: value for name, value in self.plain().items() if value != theirs[name]}

    def words(self, other: Setting) -> str:
        """What is not as in `other`, for people; "as it is" where nothing is."""
        return ", ".join(_told(name, value) for name, value in self.differences(other).items()) or "as it is"

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        return {"weights": self.weights, **self.sampling.model_dump(mode="json")}

    def key(self, **beside: Any) -> str:
        """A name for the result of drawing like this, given what else it depends on, the weights' digest included."""
        told = json.dumps({"sampling": self.sampling.model_dump(mode="json"), **beside}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def _told(name: str, value: Any) -> str:
    if name == "weights":
        return {OWN: "its own weights", "live": "weights not averaged"}.get(value, f"average of width {value}")
    if name == "guidance_interval":
        return "guided at every level" if value is None else f"guided from t {value[0]:.3g} to {value[1]:.3g}"
    if name == "num_steps":
        return f"{value} steps"
    if name == "guidance_scale":
        return f"guidance {value:.3g}"
    if name == "threshold":
        return "no threshold" if value == "none" else f"{value} threshold"
    return str(value) if name == "sampler" else f"{name} {value}"
