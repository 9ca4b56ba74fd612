"""The one training loop, of both stages: exact to resume, safe to kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from torch import nn, optim

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.core.progress import Reporter
from calotype.core.random import batch_ids
from calotype.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from calotype.training.ema import EMA
from calotype.training.journal import Journal, Segment
from calotype.training.metrics import Metrics
from calotype.training.objective import Objective
from calotype.training.optimizers import OptimizerConfig, build_optimizers, lr_factor, set_lr
from calotype.training.pace import Pace
from calotype.training.signals import StopRequest

FIRST_PREVIEW = 125  # steps; the next ones at 250, 500, 1000, ...
AUXILIARY_RATE = 0.25  # of the network's AdamW rate: stable in a short trial, not tuned
DECIDE_AT = 0.45  # share of a timed segment after which its number of steps is decided; decay starts later


class LoopConfig(Config):
    """How a stage is trained. Intervals are in steps, so that records and previews replay exactly."""

    batch_size: int = Field(64, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_halflife: float = Field(20_000, gt=0)
    log_every: int = Field(25, ge=1)
    validate_every: int = Field(500, ge=1)
    checkpoint_seconds: float = Field(45, ge=0)


@dataclass
class StageRun:
    """Everything a stage needs besides its objective."""

    folder: Path
    journal: Journal
    metrics: Metrics
    seed: int
    reporter: Reporter
    preview: Callable[[int, nn.Module], None]


def train_stage(objective: Objective, config: LoopConfig, run: StageRun) -> nn.Module:
    """Train until the journal's last segment of this stage is done; returns the averaged network.

    Continues from the newest whole checkpoint. Every step depends only on the weights and (seed, step), so that a run
    stopped at any instant ends bit-identical to an undisturbed one with the same segments.
    """
    trainer = _Trainer(objective, config, run)
    with StopRequest() as stop:
        while (segment := trainer.segment()) is not None:
            trainer.take_step(segment)
            trainer.keep_books(segment)
            if trainer.step == segment.end:
                trainer.finish()
            if stop.requested:
                trainer.save()
                raise KeyboardInterrupt
            if time.monotonic() - trainer.saved_at > config.checkpoint_seconds:
                trainer.save()
        trainer.finish()
    return trainer.ema.network


class _Trainer:
    """State of a stage between two steps."""

    def __init__(self, objective: Objective, config: LoopConfig, run: StageRun) -> None:
        self.objective, self.config, self.run = objective, config, run
        self.network = objective.network.train()
        self.optimizers: list[optim.Optimizer] = build_optimizers(self.network, config.optimizer)
        self.auxiliary = objective.auxiliary
        if self.auxiliary is not None:
            its_own = {"name": "adamw", "lr": AUXILIARY_RATE * config.optimizer.lr}
            self.optimizers += build_optimizers(self.auxiliary, config.optimizer.model_copy(update=its_own))
        self.ema = EMA(self.network, config.ema_halflife)
        self.step, self.spent, self.resumed_at = 0, 0.0, 0
        self.saved_step: int | None = None
        self.lr = 0.0
        checkpoint = newest_checkpoint(run.folder, run.reporter)
        state = None
        if checkpoint is not None:
            state = load_checkpoint(checkpoint, self.network, self.ema.network, self.optimizers, self.auxiliary)
            objective.restore(state.get("objective", {}))
            self.step = self.resumed_at = self.saved_step = int(state["step"])
            self.spent = float(state["spent"])
        run.metrics.rewind(self.step, state and state["metrics"])
        if checkpoint is not None and self.segment() is not None:
            run.reporter.say(f"continuing the {objective.stage} from step {self.step:,}")
        self.started = self.saved_at = self.shown_at = time.monotonic()
        self.pace = Pace(self.step, self.started)

    def segment(self) -> Segment | None:
        """The segment that the next step belongs to; None when all are done."""
        for segment in self.run.journal.segments(self.objective.stage):
            if segment.end is None or self.step < segment.end:
                return segment
        return None

    def take_step(self, segment: Segment) -> None:
        """One batch: losses, gradient, update, average."""
        config = self.config
        self.lr = set_lr(self.optimizers, lr_factor(self.step, segment, config.optimizer))
        ids = batch_ids(self.run.seed, self.step, config.batch_size, self.objective.num_samples)
        losses = self.objective.losses(self.step, ids)
        losses["loss"].backward()
        norms = [nn.utils.clip_grad_norm_(self.network.parameters(), config.optimizer.clip_norm)]
        if self.auxiliary is not None and "discriminator" in losses:
            losses["discriminator"].backward()
            norms.append(nn.utils.clip_grad_norm_(self.auxiliary.parameters(), config.optimizer.clip_norm))
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not all(map(math.isfinite, [*values.values(), *map(float, norms)])):
            raise UserError(
                f"the {self.objective.stage}'s loss is not finite at step {self.step + 1}",
                "lower the rate with --set and a new --out; the last checkpoint is whole",
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, self.step, config.batch_size)
        self.step += 1
        self.run.metrics.add(values)

    def keep_books(self, segment: Segment) -> None:
        """Log, validate, preview, at steps that do not depend on the clock; decide the length, which does, once."""
        config, step = self.config, self.step
        self._show(segment)
        if step % config.log_every == 0:
            self._log()
        if step % config.validate_every == 0:
            self.objective.observe(self._validate())
        if step >= FIRST_PREVIEW and step % FIRST_PREVIEW == 0 and (step // FIRST_PREVIEW).bit_count() == 1:
            self.run.preview(step, self.ema.network)
        if segment.end is None and segment.seconds is not None and self.elapsed() >= DECIDE_AT * segment.seconds:
            seconds_left = max(0.0, segment.seconds - self.elapsed())
            end = step + max(1, round(seconds_left * (step - segment.start) / self.elapsed()))
            self.run.journal.add("decided", stage=self.objective.stage, end=end, rate=round(self.rate(), 1))

    def elapsed(self) -> float:
        """Seconds spent in this segment, over all the processes that worked on it."""
        return self.spent + time.monotonic() - self.started

    def rate(self) -> float:
        """Samples a second since this process began the stage."""
        steps = self.step - self.resumed_at
        return steps * self.config.batch_size / max(time.monotonic() - self.started, 1e-9)

    def save(self) -> None:
        """Write a checkpoint of this instant."""
        if self.saved_step != self.step:
            state = {"spent": round(self.elapsed(), 3), "metrics": self.run.metrics.state()}
            state |= {"objective": noted} if (noted := self.objective.state()) else {}
            networks = self.network, self.ema.network, self.optimizers
            save_checkpoint(self.run.folder, self.step, *networks, state, auxiliary=self.auxiliary)
            self.saved_step = self.step
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """Measure and save the end of a segment, unless that was done before.

        A checkpoint of a segment's last step is written here and nowhere else, so that none exists without the
        measures that belong to it.
        """
        if self.saved_step == self.step:
            return
        if self.run.metrics.counts:
            self._log()
        if self.step == 0 or self.step % self.config.validate_every:  # step 0 is the end of what came trained
            self._validate()
        self.run.preview(self.step, self.ema.network)
        self.save()

    def _log(self) -> None:
        self.run.metrics.flush(self.step, lr=self.lr, rate=round(self.rate(), 1))

    def _validate(self) -> dict[str, float]:
        values = self.objective.validate(self.ema.network)
        self.run.metrics.write(self.step, **values)
        return values

    def _show(self, segment: Segment) -> None:
        if left := self.pace.slowed_to(self.step, time.monotonic()):
            self.run.reporter.warn(
                f"training has slowed to {left:.0%} of its best rate: something else is using the machine"
            )
        if time.monotonic() - self.shown_at < 0.2 and self.step != segment.end:
            return
        self.shown_at = time.monotonic()
        per_step = (self.shown_at - self.started) / max(self.step - self.resumed_at, 1)
        total = segment.end
        if total is None and segment.seconds is not None:
            total = self.step + round(max(0.0, segment.seconds - self.elapsed()) / per_step)
        eta = None if total is None else (total - self.step) * per_step
        self.run.reporter.update(self.step, total, rate=self.rate(), eta=eta, losses=self.run.metrics.means())
