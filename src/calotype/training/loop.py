"""The one training loop, of both stages: exact to resume, safe to kill, the same on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calotype.core import distributed
from calotype.core.errors import CorruptFileError
from calotype.core.progress import Reporter
from calotype.core.random import batch_ids
from calotype.training.checkpoint import Checkpoint, Retention, newest_checkpoint, read_checkpoint, save_checkpoint
from calotype.training.engine import Engine
from calotype.training.guard import Guard, Verdict
from calotype.training.journal import Journal, Segment
from calotype.training.metrics import Metrics
from calotype.training.objective import Objective
from calotype.training.optimizers import lr_factor
from calotype.training.pace import Pace
from calotype.training.post_hoc import save_snapshot
from calotype.training.recovery import computed, note_rollback, tell_skipped
from calotype.training.settings import LoopConfig
from calotype.training.signals import StopRequest

FIRST_PREVIEW = 125  # steps; the next ones at 250, 500, 1000, ...
FEWEST_TIMED = 5  # steps whose pace decides how many fit into the rest


@dataclass
class StageRun:
    """Everything a stage needs besides its objective.

    `named` says what a sample is, by its index; `score` measures what averaged weights draw, on fixed seeds.
    """

    folder: Path
    journal: Journal
    metrics: Metrics
    seed: int
    reporter: Reporter
    preview: Callable[[int, nn.Module, nn.Module], None]  # step, averaged weights, live ones
    named: Callable[[int], str] = str
    score: Callable[[nn.Module], Mapping[str, float]] | None = None


def train_stage(objective: Objective, config: LoopConfig, run: StageRun) -> nn.Module:
    """Train until the journal's last segment of this stage is done; returns the averaged network.

    Continues from the newest whole checkpoint. Every step depends only on the weights and (seed, step), so that a run
    stopped at any instant ends bit-identical to an undisturbed one with the same segments. Of several processes, all
    call this; rank 0 alone writes and decides by the clock.
    """
    trainer = _Trainer(objective, config, run)
    with StopRequest() as stop:
        while (segment := trainer.segment()) is not None:
            if not trainer.take_step(segment):
                continue
            trainer.keep_books(segment)
            if trainer.step == segment.end:
                trainer.finish()
            stopped, due, decided = trainer.agreed(segment, stop.requested)
            if decided:
                trainer.decide(segment)
            if due or (stopped and trainer.guard.calm):  # else the steps since the last one are taken again
                trainer.save()
            if stopped:
                raise KeyboardInterrupt
        trainer.finish()
    return trainer.engine.ema.network


class _Trainer:
    """State of a stage between two steps."""

    def __init__(self, objective: Objective, config: LoopConfig, run: StageRun) -> None:
        self.objective, self.config, self.run = objective, config, run
        self.engine = Engine(objective, config)
        self.identity = run.journal.identity(objective.stage)
        self.step, self.spent, self.segment_began = 0, 0.0, 0.0
        self.saved_step: int | None = None
        self.guard = Guard()
        self.measures: tuple[int, dict[str, float]] = (-1, {})
        self.best: dict[str, float] = {}
        self.score_seconds = 0.0  # that the last scoring took
        newest = self._newest()
        if newest is not None:
            state = self._restore(newest)
            self.spent = float(state["spent"])
            self.segment_began = float(state.get("segment_began", self.spent if self._between_segments() else 0))
        else:
            run.metrics.rewind(-1, None)  # also what was measured of a VAE that came trained, at step 0
        self.resumed_at = self.step
        if newest is not None and self.segment() is not None:
            run.reporter.say(f"continuing the {objective.stage} from step {self.step:,}")
        self.started = self.saved_at = self.shown_at = time.monotonic()
        self.pace = Pace(self.step, self.started)
        if newest is None and self.segment() is not None:
            self.save()  # what training goes back to should it diverge; and a disk that cannot hold it shows now

    def segment(self) -> Segment | None:
        """The segment that the next step belongs to; None when all are done."""
        for segment in self.run.journal.segments(self.objective.stage):
            if segment.end is None or self.step < segment.end:
                return segment
        return None

    def _between_segments(self) -> bool:
        return any(self.step == segment.end for segment in self.run.journal.segments(self.objective.stage))

    def take_step(self, segment: Segment) -> bool:
        """One batch: losses, gradient, update, average; or what the guard says instead. False where it went back."""
        step, rates = self.step, self.config.optimizer
        self.engine.set_rate(lr_factor(step, segment, rates) * self.run.journal.rate_factor(self.objective.stage, step))
        ids = batch_ids(self.run.seed, step, self.config.batch_size, self.objective.num_samples)
        outcome = computed(self.engine, self.run, step, ids)
        if outcome.overflow and self.engine.arithmetic.lower():
            self.engine.discard()
            self.step += 1
            return True
        culprits = [] if outcome.finite else outcome.culprits()
        steady = outcome.terms.get(self.objective.steady, outcome.terms["loss"])
        spoilt = len(culprits) == len(ids)
        verdict = self.guard.judge(steady, finite=outcome.finite, all_samples=spoilt, floor=self.objective.floor)
        if verdict is Verdict.ROLL_BACK:
            self.engine.discard()
            self._roll_back("its loss is not finite" if not outcome.finite else f"its loss has grown to {steady:.3g}")
            return False
        if verdict is Verdict.SKIP:
            self.engine.discard()
            tell_skipped(self.run, self.objective.stage, step, culprits, self.guard.skipped)
        else:
            self.engine.apply(step)
            bins = None if outcome.bins is None else {"loss_by_noise": outcome.bins}
            self.run.metrics.add({**outcome.terms, "gradient_norm": outcome.norms[0]}, bins)
        self.step += 1
        if self.step == segment.end and self.guard.high:  # it diverged too late to have been judged
            self._roll_back("its loss ends far above the first")
            return False
        return True

    def keep_books(self, segment: Segment) -> None:
        """Log, validate, preview, keep averages, at steps that do not depend on the clock."""
        config, step, best_yet = self.config, self.step, False
        self._show(segment)
        if step % config.log_every == 0 and self.run.metrics.counts:
            self._log()
        scoring = self._scores_at(step, segment)
        if step % config.validate_every == 0 or scoring:
            measures, decay_share = self._measure(scoring=scoring), 1 - config.optimizer.plateau_share
            if step <= segment.decay_begins(decay_share) and self.objective.observe(measures):
                self.pace = Pace(step, time.monotonic())  # what a step took before says nothing any more
            best_yet = self._is_best()
        if step >= FIRST_PREVIEW and step % FIRST_PREVIEW == 0 and (step // FIRST_PREVIEW).bit_count() == 1:
            self.run.preview(step, self.engine.ema.network, self.engine.network)
        if config.post_hoc is not None and config.post_hoc.due(step):
            self._snapshot()
        if best_yet and config.keep_best and step != segment.end and self.guard.calm:
            self.save()

    def agreed(self, segment: Segment, stop: bool) -> tuple[bool, bool, bool]:
        """Whether to stop, to save and to decide the segment's length: anyone may ask to stop, rank 0 has the clock."""
        now, leads = time.monotonic(), distributed.rank() == 0
        due = leads and self.guard.calm and now - self.saved_at > self.config.checkpoint_seconds
        decided = leads and self._length_due(segment)
        flags = distributed.total(torch.tensor([float(stop), float(due), float(decided)]))
        stopped, saving, deciding = (flag > 0 for flag in flags.tolist())
        return stopped, saving, deciding

    def decide(self, segment: Segment) -> None:
        """Write down, once, how many steps, and scores, fit into the rest of a timed segment at the rate of late.

        The learning rate falls from this very step, however fast the steps before it were: so a replay of them, which
        knows the end from the start, takes them alike.
        """
        assert segment.seconds is not None
        left = max(0.0, segment.seconds - self.elapsed() + self.segment_began - self.score_seconds)
        per_step = 1 / max(self.pace.late_rate(self.step, time.monotonic()), 1e-9)
        per_step += self.score_seconds / (self.config.score_every or math.inf)
        end = self.step + max(1, round(left / per_step))
        facts = {"end": end, "decay_from": self.step, "rate": round(self.rate(), 1)}
        self.run.journal.add("decided", stage=self.objective.stage, **facts)

    def elapsed(self) -> float:
        """Seconds spent in this stage, over all the processes that worked on it one after another."""
        return self.spent + time.monotonic() - self.started

    def rate(self) -> float:
        """Samples a second since this process began the stage."""
        steps = self.step - self.resumed_at
        return steps * self.config.batch_size / max(time.monotonic() - self.started, 1e-9)

    def save(self) -> None:
        """Write a checkpoint of this instant; what every process has goes into the one file."""
        if self.saved_step != self.step:
            tensors = self.engine.tensors()
            clock = {"spent": round(self.elapsed(), 3), "segment_began": round(self.segment_began, 3)}
            state: dict[str, Any] = clock | {"metrics": self.run.metrics.state()}
            state |= {"objective": self.objective.state(), "guard": self.guard.state(), "best": self.best}
            state |= {"arithmetic": self.engine.arithmetic.state()}
            measures = self.measures[1] if self.measures[0] == self.step else {}
            if distributed.rank() == 0:
                best = self.objective.best if self.config.keep_best else ()
                checkpoint = Checkpoint(self.step, tensors, state, self.identity, measures)
                save_checkpoint(self.run.folder, checkpoint, Retention(self.config.keep, best))
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
        if self.measures[0] != self.step:
            self._measure(scoring=False)  # what a segment's last step draws is scored when it was taken, if at all
        if self.config.post_hoc is not None and self.step:
            self._snapshot()
        self.run.preview(self.step, self.engine.ema.network, self.engine.network)
        self.segment_began = self.elapsed()  # that of the next one, which another process may begin
        self.save()

    def _roll_back(self, reason: str) -> None:
        """Return to the last good state, to learn more slowly from there."""
        newest = self._newest()
        assert newest is not None  # one is written before the first step
        note_rollback(self.run, self.objective.stage, self.step, int(newest.name.removeprefix("step-")), reason)
        self._restore(newest)

    def _newest(self) -> Path | None:
        """The newest whole checkpoint, as rank 0 sees it."""
        found = None
        if distributed.rank() == 0:
            found = newest_checkpoint(self.run.folder, self.run.reporter, self.identity or None)
            if found is None and any(self.run.folder.glob("step-*")):
                raise CorruptFileError(
                    f"no checkpoint in {self.run.folder} is whole",
                    f"restore one, or remove that folder to train the {self.objective.stage} anew",
                )
        name = distributed.share(None if found is None else found.name)
        return None if name is None else self.run.folder / name

    def _restore(self, folder: Path) -> dict[str, Any]:
        """Take up a checkpoint; returns its state."""
        checkpoint = read_checkpoint(folder)
        self.engine.restore(checkpoint.tensors)
        state = checkpoint.state
        self.objective.restore(state.get("objective", {}))
        best = state.get("best")  # one number in runs of an older calotype, which had one measure
        self.guard, self.best = Guard.of(state.get("guard")), dict(best) if isinstance(best, dict) else {}
        self.engine.arithmetic.restore(state.get("arithmetic", {}))
        self.run.metrics.rewind(checkpoint.step, state["metrics"])
        self.step = self.saved_step = checkpoint.step
        self.measures = (checkpoint.step, checkpoint.measures) if checkpoint.measures else (-1, {})
        return state

    def _log(self) -> None:
        self.run.metrics.flush(self.step, lr=self.engine.lr, rate=round(self.rate(), 1))

    def _measure(self, *, scoring: bool) -> dict[str, float]:
        """Validate the averaged weights, and score what they draw if that is due."""
        values = self.objective.validate(self.engine.ema.network)
        if scoring and self.run.score is not None:
            began = time.monotonic()
            values |= self.run.score(self.engine.ema.network)
            self.score_seconds = time.monotonic() - began
            self.pace.leave_out(self.score_seconds)
        self.run.metrics.write(self.step, **values)
        self.measures = (self.step, values)
        return values

    def _scores_at(self, step: int, segment: Segment) -> bool:
        """Whether `step` is scored: every so many, and the last of a segment if there have been so many."""
        every = self.config.score_every
        if self.run.score is None or every is None or step < every:
            return False
        return step == segment.end or step % every == 0

    def _is_best(self) -> bool:
        """Whether the last validation was, by any measure, the best of this stage so far."""
        found = False
        for name, direction in self.objective.best:
            value, best = self.measures[1].get(name, math.nan), self.best.get(name)
            if math.isfinite(value) and (best is None or (value < best) is (direction == "min")):
                self.best[name] = value
                found = True
        return found

    def _snapshot(self) -> None:
        assert self.config.post_hoc is not None
        averages = self.engine.averages()
        if distributed.rank() == 0:
            save_snapshot(self.run.folder, self.step, averages, self.config.post_hoc)

    def _length_due(self, segment: Segment) -> bool:
        if segment.end is not None or segment.seconds is None or self.step - self.pace.begun < FEWEST_TIMED:
            return False
        return self.elapsed() - self.segment_began >= self.config.optimizer.plateau_share * segment.seconds

    def _show(self, segment: Segment) -> None:
        now = time.monotonic()
        if left := self.pace.slowed_to(self.step, now):
            # Threads wait for the slowest: on two cores of which others took 60 %, one was twice as fast as two.
            several = self.engine.device.type == "cpu" and torch.get_num_threads() > 1
            mend = "; with OMP_NUM_THREADS=1 it may then be faster" if several else ""
            self.run.reporter.warn(
                f"training has slowed to {left:.0%} of its best rate: something else is using the machine{mend}"
            )
        if now - self.shown_at < 0.2 and self.step != segment.end:
            return
        self.shown_at = now
        per_step = (now - self.started) / max(self.step - self.resumed_at, 1)
        total = segment.end
        if total is None and segment.seconds is not None:
            total = self.step + round(max(0.0, segment.seconds - self.elapsed() + self.segment_began) / per_step)
        eta = None if total is None else (total - self.step) * per_step
        self.run.reporter.update(self.step, total, rate=self.rate(), eta=eta, losses=self.run.metrics.means())
