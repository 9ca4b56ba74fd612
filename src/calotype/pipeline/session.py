"""One training session of a run: what its stages share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from calotype.core import distributed
from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet
from calotype.pipeline import previews
from calotype.pipeline.run import Run
from calotype.pipeline.scoring import Score
from calotype.recipes import Recipe
from calotype.training.journal import Budget, Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.objective import Objective
from calotype.training.settings import LoopConfig
from calotype.training.tracking import Trackers


@dataclass
class Session:
    """A run, its settings as the data completed them, and what is asked for now. `look` is called after every preview.

    `started` is the clock when the command began, `trained_for` the seconds since then that stages have used.
    """

    run: Run
    recipe: Recipe
    budget: Budget
    device: torch.device
    reporter: Reporter
    started: float
    journal: Journal
    trackers: Trackers
    look: Callable[[Run], object] | None = None
    trained_for: float = field(default=0.0, init=False)

    def train(
        self,
        objective: Objective,
        config: LoopConfig,
        folder: Path,
        preview: previews.Preview,
        pictures: PictureSet,
        score: Score | None = None,
    ) -> nn.Module:
        """Train one stage over the segments that the journal has of it; returns the averaged network."""
        entered, writes = time.monotonic(), distributed.rank() == 0
        metrics = Metrics(self.run.metrics, objective.stage, writes=writes, tracked=self.trackers.record)

        def named(sample: int) -> str:
            return pictures.names[int(pictures.train_ids[sample])]

        stage = StageRun(folder, self.journal, metrics, self.recipe.seed, self.reporter, preview, named, score)
        try:
            return train_stage(objective, config, stage)
        finally:
            self.trained_for += time.monotonic() - entered

    def looked_at(self) -> None:
        """There is something new to see in the run's folder."""
        if self.look is None or distributed.rank() != 0:
            return
        try:
            self.look(self.run)
        except Exception as error:  # whatever is wrong with a page about the run must not cost the run
            self.look = None
            self.reporter.warn(f"its report is not written while it trains: {error}")

    def overhead(self) -> float:
        """Seconds of this process that no training stage has used."""
        return time.monotonic() - self.started - self.trained_for
