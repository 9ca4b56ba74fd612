"""Which settings are tried, and in what order: one axis at a time from where the model is, or a grid that was given.

A full grid of six axes has thousands of points, and halving needs many at once to have something to drop. Axes of
sampling act nearly independently, and all points share prompts and seeds, so that one axis is told apart with few
pictures: walking the axes, and the one that matters most again at the end, gets about as far with two dozen points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import yaml

from calotype.core.errors import UserError, nearest
from calotype.inspection.lab.setting import Setting
from calotype.process import Process
from calotype.recipes import SamplingSection

GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
WIDTHS = ("0.05", "0.1", "0.15", "0.2")
BAND = (0.25, 2.5)  # noise over signal between which guidance is most of use (Kynkaanniemi et al. 2024, figure 3)
SAMPLERS = ("dpm++2m", "dpm++2m-sde", "ddim", "heun")
STEPS = (0.5, 0.75, 1.5, 2.0)
MOST_POINTS = 400  # of a grid that was given

Axis = tuple[str, Callable[[Setting, Sequence[Setting]], list[Setting]]]


def axes(process: Process, *, asked: bool, weights: Sequence[str]) -> list[Axis]:
    """The axes in their order; each gives the points to try from the best setting so far and from all tried before.

    `asked`: whether the model is told what to draw; otherwise there is nothing to guide. `weights`: those there are.
    """
    guided: list[Axis] = [("guidance", _guidance)]
    averages: list[Axis] = [("average", lambda best, _: [best.but(weights=name) for name in weights])]
    rest: list[Axis] = [("threshold", _thresholds), ("sampler", _samplers), ("steps", _steps)]
    if not asked:
        return [*averages, *rest]
    between: list[Axis] = [("interval", lambda best, _: _intervals(best, process))]
    return [*guided, *averages, *between, *rest, ("guidance again", _closer_guidance)]


def _guidance(best: Setting, _: Sequence[Setting]) -> list[Setting]:
    return [best.but(guidance_scale=scale) for scale in GUIDANCE]


def _closer_guidance(best: Setting, tried: Sequence[Setting]) -> list[Setting]:
    """Half way to the nearest scales tried on either side of the best; beyond the end where it is the last."""
    own = best.sampling.guidance_scale
    scales = sorted({setting.sampling.guidance_scale for setting in tried} | {own})
    lower, higher = [s for s in scales if s < own], [s for s in scales if s > own]
    closer = [(own + lower[-1]) / 2] if lower else []
    closer += [(own + higher[0]) / 2 if higher else own * 4 / 3]
    return [best.but(guidance_scale=round(scale, 2)) for scale in closer]


def _intervals(best: Setting, process: Process) -> list[Setting]:
    """No guidance where all is noise, none where all is drawn, neither; and the last with more of it between."""
    low, high = (float(process.t_from_log_snr(torch.tensor(-math.log(sigma)))) for sigma in BAND)
    low, high = round(low, 4), round(high, 4)
    more = round(1 + 1.5 * (best.sampling.guidance_scale - 1), 2)
    return [
        best.but(guidance_interval=(0.0, high)),
        best.but(guidance_interval=(low, process.t_max)),
        best.but(guidance_interval=(low, high)),
        best.but(guidance_interval=(low, high), guidance_scale=more),
    ]


def _thresholds(best: Setting, _: Sequence[Setting]) -> list[Setting]:
    return [best.but(threshold=name) for name in ("none", "dynamic", "static")]


def _samplers(best: Setting, _: Sequence[Setting]) -> list[Setting]:
    """Each with about as many passes of the network."""
    passes = best.sampling.num_steps * (2 if best.sampling.sampler == "heun" else 1)
    steps = {name: math.ceil(passes / 2) if name == "heun" else passes for name in SAMPLERS}
    names = [name for name in SAMPLERS if name != best.sampling.sampler]
    return [best.but(sampler=name, num_steps=steps[name], grid=None) for name in names]


def _steps(best: Setting, _: Sequence[Setting]) -> list[Setting]:
    own = best.sampling.num_steps
    return [best.but(num_steps=max(2, round(own * factor))) for factor in STEPS]


def given(lists: Sequence[str], default: Setting) -> list[Setting]:
    """Every combination of the values in `lists`, as "guidance_scale=[1, 2, 3]" and "weights=[own, 0.05]".

    UserError for what is no setting, no list of values, or too many points.
    """
    values: dict[str, list[Any]] = {}
    for text in lists:
        name, equals, listed = text.partition("=")
        values[_known(name.strip(), text if not equals else None)] = _listed(text, listed)
    if math.prod(len(found) for found in values.values()) > MOST_POINTS:
        raise UserError(f"these lists have more than {MOST_POINTS} combinations", "give fewer values")
    points = [_combined(default, dict(zip(values, point))) for point in itertools.product(*values.values())]
    return list(dict.fromkeys(points))


def _combined(default: Setting, point: Mapping[str, Any]) -> Setting:
    sampling = {name: value for name, value in point.items() if name != "weights"}
    return default.but(weights=str(point["weights"]) if "weights" in point else None, **sampling)


def _known(name: str, whole: str | None) -> str:
    if whole is not None:
        raise UserError(f"'{whole}' is not a list of values", "write guidance_scale=[1, 2, 3]")
    names = ["weights", *SamplingSection.model_fields]
    if name not in names:
        raise UserError(f"unknown setting '{name}'", nearest(name, names))
    return name


def _listed(text: str, listed: str) -> list[Any]:
    try:
        found = yaml.safe_load(listed)
    except yaml.YAMLError:
        found = None
    values = found if isinstance(found, list) else [found]
    if found is None or not values:
        raise UserError(f"'{text}' is not a list of values", "write guidance_scale=[1, 2, 3]")
    return values
