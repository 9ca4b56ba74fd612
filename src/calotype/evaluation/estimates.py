"""A score with its 95 % interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from torch import Tensor

LEVEL_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal law."""


@dataclass(frozen=True)
class Estimate:
    """A score, its 95 % interval, and the number of independent things (pictures, prompts) that it rests on."""

    value: float
    low: float
    high: float
    count: int

    def plain(self) -> dict[str, float | int]:
        """What records and JSON hold: {"value", "low", "high", "count"}."""
        return asdict(self)


def normal_estimate(value: float, variance: float, count: int) -> Estimate:
    """value -+ t sqrt(variance), with Student's t of count - 1 degrees of freedom."""
    half = student_quantile(count - 1) * math.sqrt(max(variance, 0.0))
    return Estimate(value, value - half, value + half, count)


def share_estimate(shares: Tensor) -> Estimate:
    """Mean of independent shares (n,) in [0, 1], one a prompt or picture, with Wilson's interval (eq. 68).

    A prompt with several pictures counts once, with the share of them that are right.
    """
    values = shares.double()
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"shares (n,) are needed, at least one, not {tuple(values.shape)}")
    value, count = float(values.mean()), len(values)
    if bool(((values == 0) | (values == 1)).all()):
        return _wilson(value, count, count)
    return share_of_variance(value, float(values.var()) / count, count)


def share_of_variance(value: float, variance: float, count: int) -> Estimate:
    """Wilson's interval of a share with a measured variance, which is that of p (1 - p) / variance plain answers."""
    spread = value * (1 - value)
    answers = spread / variance if variance > 0 and spread > 0 else count
    return _wilson(value, answers, count)


def _wilson(value: float, answers: float, count: int) -> Estimate:
    z = student_quantile(count - 1)
    centre = value + z**2 / (2 * answers)
    half = z * math.sqrt(value * (1 - value) / answers + z**2 / (4 * answers**2))
    scale = 1 + z**2 / answers
    low = min((centre - half) / scale, _rare(value * answers) / answers)
    high = max((centre + half) / scale, 1 - _rare((1 - value) * answers) / answers)
    return Estimate(value, max(0.0, low), min(1.0, high), count)


def _rare(found: float) -> float:
    """A lower bound for how many were to be expected where at most three were found, where Wilson's is too high.

    The 5 % quantile of the gamma law with shape `found` (Brown, Cai & DasGupta 2001, section 4.1.1), by its cube root
    (Wilson & Hilferty 1931).
    """
    if found > 3:
        return math.inf
    return found * max(0.0, 1 - 1 / (9 * found) - 1.6449 / (3 * math.sqrt(found))) ** 3 if found > 0 else 0.0


def student_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t (Abramowitz & Stegun 1964, 26.7.5; within 1 % from 3 degrees on)."""
    z, v = LEVEL_95, float(max(degrees, 2))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (power + 1) for power, term in enumerate(terms))
