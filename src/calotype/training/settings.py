"""The settings of a stage's training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.training.optimizers import OptimizerConfig
from calotype.training.post_hoc import PostHocConfig
from calotype.training.precision import Precision

# What a run may be continued with though it was started with another: the weights depend on none of it, or on the last
# digits alone.
MAY_CHANGE = (
    *("micro_batch", "precision", "tf32", "compile", "sharding"),
    *("checkpoint_seconds", "keep", "keep_best", "post_hoc", "score_every"),
)


MOST_TIMED_DECAY = 0.6  # of a segment whose length is decided before the decay begins


class LoopConfig(Config):
    """How a stage is trained. Intervals are in steps, so that records and previews replay exactly.

    `batch_size` is that of all processes together; `micro_batch`, how many samples a process computes at once (null:
    its whole share, halved when memory does not suffice). `sharding`: "ddp", or "fsdp" for a network that one device
    does not hold. Every `score_every` steps, and at the end, the denoiser's samples are compared with real pictures
    (null: never). `keep` newest checkpoints are kept, and the best one by each measure if `keep_best`.
    """

    batch_size: int = Field(64, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    precision: Precision = "auto"
    tf32: bool = True
    compile: bool = False
    sharding: Literal["ddp", "fsdp"] = "ddp"
    ema_halflife: float = Field(20_000, gt=0)
    post_hoc: PostHocConfig | None = None
    log_every: int = Field(25, ge=1)
    validate_every: int = Field(500, ge=1)
    score_every: int | None = Field(None, ge=1)
    checkpoint_seconds: float = Field(45, ge=0)
    keep: int = Field(3, ge=1)
    keep_best: bool = True


def check_decay(name: str, config: LoopConfig, *, timed: bool) -> None:
    """UserError where a timed run could not know its length before its decay has to begin."""
    share = 1 - config.optimizer.plateau_share
    if timed and share > MOST_TIMED_DECAY:
        raise UserError(
            f"{name}.optimizer.decay_share {share:g} needs a number of steps: how many fit into --minutes shows later",
            f"give --steps, or a share of at most {MOST_TIMED_DECAY:g}",
        )


def stage_setting(stage: str) -> str:
    """Where a stage's training is in a recipe."""
    return "training" if stage == "denoiser" else f"{stage}.training"
