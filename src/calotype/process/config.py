"""A process as plain values and back, for configs and bundles."""

import inspect
from collections.abc import Callable
from typing import Any

from calotype.core.errors import UserError, nearest
from calotype.process.gaussian import Process, RectifiedFlow, VarianceExploding, VariancePreserving

Factory = Callable[..., Process]
SCHEDULES: dict[str, Factory] = {
    "linear": VariancePreserving.linear,
    "scaled-linear": VariancePreserving.scaled_linear,
    "cosine": VariancePreserving.cosine,
    "angle": VariancePreserving.angle,
}
KINDS: dict[str, Factory | dict[str, Factory]] = {
    "variance-preserving": SCHEDULES,
    "rectified-flow": RectifiedFlow,
    "variance-exploding": VarianceExploding,
}


def process_from_config(values: dict[str, Any]) -> Process:
    """The process whose `config()` gave these values. Unknown kinds, schedules and keys name the nearest known one."""
    settings = dict(values)
    factory = _named("process kind", settings.pop("kind", None), KINDS)
    if isinstance(factory, dict):
        factory = _named("noise schedule", settings.pop("schedule", None), factory)
    known = inspect.signature(factory).parameters
    for key, value in settings.items():
        if key not in known:
            mend = nearest(key, known) if known else f"{values['kind']} has no settings"
            raise UserError(f"process: unknown key '{key}'", mend)
        switch = isinstance(known[key].default, bool)
        if type(value) not in ((bool,) if switch else (int, float)):
            raise UserError(f"process: {key} is {value!r}", "give true or false" if switch else "give a number")
    return factory(**settings)


def _named(what: str, name: Any, known: dict[str, Any]) -> Any:
    if name not in list(known):
        raise UserError(f"unknown {what} {name!r}", nearest(str(name or ""), known))
    return known[name]
