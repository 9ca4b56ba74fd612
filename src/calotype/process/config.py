"""A process as plain values and back, for configs and bundles."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from calotype.core.errors import UserError, nearest
from calotype.process.gaussian import Process, RectifiedFlow, VarianceExploding, VariancePreserving

SCHEDULES: dict[str, Callable[..., Process]] = {
    "linear": VariancePreserving.linear,
    "scaled-linear": VariancePreserving.scaled_linear,
    "cosine": VariancePreserving.cosine,
    "angle": VariancePreserving.angle,
}
KINDS = ("variance-preserving", "rectified-flow", "variance-exploding")


def process_from_config(values: dict[str, Any]) -> Process:
    """The process whose `config()` gave these values. Unknown kinds, schedules and keys name the nearest known one."""
    values = dict(values)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise UserError(f"unknown process kind {kind!r}", nearest(str(kind), KINDS))
    if kind == "rectified-flow":
        factory: Callable[..., Process] = RectifiedFlow
    elif kind == "variance-exploding":
        factory = VarianceExploding
    else:
        schedule = values.pop("schedule", None)
        if schedule not in SCHEDULES:
            raise UserError(f"unknown noise schedule {schedule!r}", nearest(str(schedule), SCHEDULES))
        factory = SCHEDULES[schedule]
    known = [] if factory is RectifiedFlow else list(inspect.signature(factory).parameters)
    for key in values:
        if key not in known:
            raise UserError(
                f"process: unknown key '{key}'", nearest(key, known) if known else f"{kind} has no settings"
            )
    for key, value in values.items():
        wanted = bool if key == "zero_terminal_snr" else (int, float)
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            raise UserError(
                f"process: {key} is {value!r}", "give a number" if wanted is not bool else "give true or false"
            )
    return factory(**values)
