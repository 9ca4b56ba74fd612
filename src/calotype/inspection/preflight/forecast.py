"""From what the parts of a run cost to what the whole will take: steps, seconds, disk."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.inspection.preflight.costs import StageCost
from calotype.pipeline.denoiser_stage import LEAST_SHARE
from calotype.training.loop import FIRST_PREVIEW
from calotype.training.settings import LoopConfig

MOST_STEPS = 1 << 40


@dataclass(frozen=True)
class StageForecast:
    """A stage of so many `steps`: how often it will do what, and how long that takes together."""

    steps: int
    seconds: float
    validations: int
    previews: int
    saves: int
    snapshots: int


@dataclass(frozen=True)
class Fixed:
    """Seconds that do not depend on the length of training: before it, between the stages, and after it."""

    before: float
    between: float
    after: float

    @property
    def total(self) -> float:
        return self.before + self.between + self.after


def forecast_stage(cost: StageCost, config: LoopConfig, steps: int) -> StageForecast:
    """What `steps` of a stage take, with all that the loop does besides."""
    validations = -(-steps // config.validate_every)  # and one at the end
    previews = 1 + max(0, (steps // FIRST_PREVIEW).bit_length())
    snapshots = 0
    if config.post_hoc is not None:
        at = config.post_hoc.base
        while at <= steps:
            snapshots, at = snapshots + 1, at + config.post_hoc.stride(at)
    work = steps * cost.step_seconds + validations * cost.validation + previews * cost.preview
    work += snapshots * cost.snapshot[0]
    saves = 2 + validations * config.keep_best + int(work / max(config.checkpoint_seconds, cost.step_seconds, 1e-9))
    return StageForecast(steps, work + saves * cost.save[0], validations, previews, min(saves, steps + 2), snapshots)


def steps_within(cost: StageCost, config: LoopConfig, seconds: float) -> int:
    """The most steps, at least 1, that a stage can take in this time."""
    low, high = 1, 2
    while high < MOST_STEPS and forecast_stage(cost, config, high).seconds <= seconds:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if forecast_stage(cost, config, middle).seconds <= seconds else (low, middle)
    return low


def timed_stages(
    minutes: float,
    share: float,
    fixed: Fixed,
    costs: tuple[StageCost | None, StageCost],
    configs: tuple[LoopConfig, ...],
) -> tuple[StageForecast | None, StageForecast]:
    """Both stages of a run of so many minutes, shared out as the run does it."""
    vae, spent = None, 0.0
    if costs[0] is not None:
        usable = max(60 * minutes - fixed.before - fixed.after, 1.0)
        vae = forecast_stage(costs[0], configs[0], steps_within(costs[0], configs[0], share * usable))
        spent = vae.seconds
    left = max(60 * minutes - fixed.total - spent, LEAST_SHARE * (1 - share) * 60 * minutes)
    return vae, forecast_stage(costs[1], configs[1], steps_within(costs[1], configs[1], left))


def checkpoint_bytes(cost: StageCost, config: LoopConfig, forecast: StageForecast) -> int:
    """The most that a stage's checkpoints and snapshots take on the disk, with one that is being written."""
    best = config.keep_best * (1 if config.score_every is None else 2)
    count = min(config.keep + best, forecast.saves) + 1
    kept = 0 if config.post_hoc is None else min(config.post_hoc.keep, forecast.snapshots) + 2
    return count * cost.save[1] + kept * cost.snapshot[1]
