"""What can go wrong in a step and how training goes on: too little memory, a sample that is no number, divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.training.engine import NOISE_BINS, Engine, Outcome
from calotype.training.guard import MOST_ROLLBACKS, MOST_SKIPPED
from calotype.training.settings import stage_setting

if TYPE_CHECKING:
    from calotype.training.loop import StageRun

ROLLED_BACK_RATE = 0.25  # of the rate that made training diverge


def computed(engine: Engine, run: StageRun, step: int, ids: Tensor) -> Outcome:
    """The batch's outcome; where memory does not suffice, in parts half as large from this step on.

    UserError where one sample alone is too many, or where other processes wait in the middle of the step.
    """
    stage, journal = engine.objective.stage, run.journal
    while True:
        asked, found = engine.config.micro_batch, journal.micro_batch(stage, step)
        size = min(value for value in (asked, found, len(distributed.my_part(ids))) if value is not None)
        try:
            return engine.compute(step, ids, size)
        except torch.OutOfMemoryError:
            if size == 1 or distributed.world_size() > 1:
                raise UserError(
                    f"memory does not suffice for {size} pictures at once (step {step + 1} of the {stage})",
                    f"--set {stage_setting(stage)}.micro_batch={max(size // 2, 1)}, or a smaller network",
                ) from None
        smaller = (size + 1) // 2
        journal.add("micro_batch", stage=stage, step=step, size=smaller)
        run.reporter.warn(
            f"memory does not suffice for {size} pictures at once: {smaller} at a time from step {step + 1}, "
            f"the batch of {len(ids)} stays"
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def tell_skipped(run: StageRun, stage: str, step: int, culprits: list[tuple[int, int | None]], count: int) -> None:
    """Name what gave no number, and record it. UserError where that was once too often."""
    ids = [sample for sample, _ in culprits]
    named = ", ".join(f"{i} ({run.named(i)})" for i in ids[:4]) + (", ..." if len(ids) > 4 else "")
    bins = sorted({noise + 1 for _, noise in culprits if noise is not None})
    where = f", noise bin {', '.join(map(str, bins))} of {NOISE_BINS}" if bins else ""
    whose = f"sample {named}{where}" if ids else "the gradient"
    run.metrics.write(step + 1, skipped=ids)
    run.reporter.warn(f"{stage}, step {step + 1}: {whose} is not finite; step skipped ({count} so far)")
    if count > MOST_SKIPPED:
        raise UserError(
            f"{count} steps of the {stage} gave no finite loss, the last with {whose}",
            "remove these pictures, or choose a smaller learning rate with --set, and another --out",
        )


def note_rollback(run: StageRun, stage: str, at: int, to: int, reason: str) -> None:
    """Write down that training goes back from step `at` to `to`, and what of its rate is left from there.

    UserError where it has gone back too often.
    """
    if run.journal.rollbacks(stage) >= MOST_ROLLBACKS:
        raise UserError(
            f"the {stage} diverges again and again, at last at step {at + 1}, where {reason}",
            f"choose a smaller {stage_setting(stage)}.optimizer.lr with --set, and another --out",
        )
    run.journal.add("rolled_back", stage=stage, at=at, to=to, rate=ROLLED_BACK_RATE)
    run.reporter.warn(
        f"the {stage} diverged at step {at + 1}, {reason}: back to step {to}, at a quarter of the rate from there"
    )
