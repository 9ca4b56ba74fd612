"""One step: in parts as in one piece, in bfloat16, and with too little memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.nn.dropout import Dropout
from calotype.training.engine import NOISE_BINS, Engine
from calotype.training.journal import Budget, Journal
from calotype.training.objective import Losses
from calotype.training.optimizers import OptimizerConfig
from calotype.training.settings import LoopConfig, check_decay
from tests.training.test_exact_resume import Stop, Toy, final_state, no_fsync, run_toy
from tests.training.test_guard import run
from tests.training.test_objectives import denoiser_objective, vae_objective

__all__ = ["no_fsync"]


def gradient(objective: Any, micro_batch: int | None, **settings: Any) -> tuple[Tensor, dict[str, float]]:
    engine = Engine(objective, LoopConfig(batch_size=4, **settings))
    outcome = engine.compute(3, torch.tensor([0, 3, 1, 2]), micro_batch)
    return torch.cat([p.grad.flatten() for p in engine.network.parameters() if p.grad is not None]), outcome.terms


@pytest.mark.parametrize("make", [vae_objective, denoiser_objective])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_parts_add_up_to_the_batch(make: Any, micro_batch: int) -> None:
    whole, terms = gradient(make(), None)
    parts, of_parts = gradient(make(), micro_batch)
    assert (whole - parts).abs().max() < 1e-6 * whole.abs().max()
    assert of_parts == pytest.approx(terms, rel=1e-5)


def test_bfloat16_is_near_and_not_the_same() -> None:
    exact, terms = gradient(denoiser_objective(), None, precision="fp32")
    rounded, of_rounded = gradient(denoiser_objective(), None, precision="bf16")
    assert not torch.equal(exact, rounded)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99
    assert of_rounded["loss"] == pytest.approx(terms["loss"], rel=0.02)
    assert rounded.dtype == torch.float32


def test_half_precision_scales_its_loss_and_lowers_the_scale_when_it_overflows(tmp_path: Path) -> None:
    class Steep(Toy):
        def losses(self, step: int, ids: Tensor) -> Losses:
            losses = super().losses(step, ids)
            return Losses({"loss": losses.terms["loss"] * 1e36}, losses.each)

    engine = Engine(Steep(), LoopConfig(batch_size=4, precision="fp16"))
    before = torch.cat([p.detach().flatten().clone() for p in engine.network.parameters()])
    outcome = engine.compute(0, torch.arange(4))
    assert outcome.overflow
    assert engine.arithmetic.lower()
    scale = engine.arithmetic.scaler.get_scale()
    engine.discard()
    assert engine.arithmetic.state()["scale"] == scale / 2
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in engine.network.parameters()]))
    run(tmp_path / "whole", Toy(), 8, precision="fp16", checkpoint_seconds=0)
    for step in range(1, 8):
        with pytest.raises(Stop):
            run(tmp_path / "often", Toy(dies_at=step), 8, precision="fp16", checkpoint_seconds=0)
    run(tmp_path / "often", Toy(), 8, precision="fp16")
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")


def test_errors_are_counted_by_noise() -> None:
    objective = denoiser_objective()
    engine = Engine(objective, LoopConfig(batch_size=4))
    outcome = engine.compute(0, torch.arange(4))
    assert outcome.bins is not None
    sums, counts = outcome.bins
    assert len(sums) == len(counts) == NOISE_BINS
    assert sum(counts) == 4
    assert sum(sums) / 4 == pytest.approx(outcome.terms["loss"], rel=1e-5)
    whose = outcome.parts[0].noise
    assert whose is not None
    assert [int((whose * NOISE_BINS).long().eq(k).sum()) for k in range(NOISE_BINS)] == counts


class Large(Toy):
    """As if memory held four samples, and from step 6 on only one."""

    def losses(self, step: int, ids: Tensor) -> Losses:
        if len(ids) > (2 if step < 6 else 1):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().losses(step, ids)


def test_too_little_memory_makes_smaller_parts_and_the_same_weights(tmp_path: Path) -> None:
    said = run(tmp_path / "large", Large(), 12).said
    assert "4 pictures at once: 2 at a time from step 1" in said[0]
    assert "1 at a time from step 7" in said[1]
    run(tmp_path / "whole", Toy(), 12)
    found, expected = (final_state(tmp_path / name) for name in ("large", "whole"))
    losses = [
        [record["loss"] for record in json.loads(state["metrics"]) if "loss" in record] for state in (found, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for step in range(1, 12):
        with pytest.raises(Stop):
            run(tmp_path / "often", Large(dies_at=step), 12, checkpoint_seconds=0)
    run(tmp_path / "often", Large(), 12)
    assert final_state(tmp_path / "often") == found


def test_not_even_one_picture_fits(tmp_path: Path) -> None:
    class Huge(Toy):
        def losses(self, step: int, ids: Tensor) -> Losses:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"memory does not suffice for 1 pictures at once.*smaller network"):
        run(tmp_path, Huge(), 2)


def test_dropout_is_a_pure_function_of_step_and_sample() -> None:
    objective = denoiser_objective()
    for parameter in objective.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    blocks = [block for block in objective.network.modules() if isinstance(block, Dropout)]

    def losses(step: int, ids: list[int], share: float = 0.5) -> Tensor:
        for block in blocks:
            block.p = share
        return objective.losses(step, torch.tensor(ids)).each

    together = losses(3, [0, 3, 1])
    assert torch.allclose(together[[2, 0]], losses(3, [1, 0]), rtol=1e-5)
    assert torch.equal(together, losses(3, [0, 3, 1]))
    assert not torch.allclose(together, losses(3, [0, 3, 1], share=0.0), rtol=1e-4)


@pytest.mark.parametrize(("at", "end", "decay_from"), [(2, 9, 5), (6, 9, 6)])
def test_a_nearer_end_is_reached_with_its_decay(tmp_path: Path, at: int, end: int, decay_from: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(steps=20))
    journal.add("segment", stage="denoiser", start=0, end=20)
    journal.shorten(Budget(steps=end), at, 0.0, 0.4)
    again = Journal(tmp_path / "journal.jsonl")
    assert again.requests() == [Budget(steps=end)]
    (segment,) = again.segments("denoiser")
    assert (segment.end, segment.decay_from) == (end, decay_from)


def test_an_end_that_is_past_or_in_the_decay_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(steps=20))
    journal.add("segment", stage="denoiser", start=0, end=20)
    for step, steps in ((9, 9), (13, 15)):
        with pytest.raises(UserError, match=f"already given --steps 20 and is too far on to end at --steps {steps}"):
            journal.shorten(Budget(steps=steps), step, 0.0, 0.4)


def test_an_end_before_what_is_done_is_refused_also_before_the_rest_is_planned(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(steps=20))
    journal.add("segment", stage="denoiser", start=0, end=20)
    journal.request(Budget(steps=60))
    with pytest.raises(UserError, match="already given --steps 60"):
        journal.shorten(Budget(steps=15), 20, 0.0, 0.4)
    journal.shorten(Budget(steps=40), 20, 0.0, 0.4)
    assert journal.requests() == [Budget(steps=20), Budget(steps=40)]


def test_a_timed_run_refuses_a_decay_that_it_could_not_place() -> None:
    config = LoopConfig(optimizer=OptimizerConfig(decay="cosine", decay_share=1.0))
    check_decay("training", config, timed=False)
    with pytest.raises(UserError, match=r"training\.optimizer\.decay_share 1 needs a number of steps"):
        check_decay("training", config, timed=True)


def test_training_goes_on_after_the_rate_was_zero(tmp_path: Path) -> None:
    run_toy(tmp_path, ends=(6,))
    run_toy(tmp_path, ends=(6, 14))
    rates = [json.loads(line).get("lr") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [rate for rate in rates if rate is not None][-1] > 0


def test_fewer_minutes_shorten_a_segment_whose_length_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.request(Budget(minutes=60))
    journal.add("segment", stage="denoiser", start=0, seconds=2000.0)
    journal.shorten(Budget(minutes=40), 100, 300.0, 0.4)
    assert Journal(tmp_path / "journal.jsonl").segments("denoiser")[-1].seconds == 800.0
    assert journal.requests() == [Budget(minutes=40)]
    with pytest.raises(UserError, match="already given --minutes 40 and is too far on to end at --minutes 30"):
        journal.shorten(Budget(minutes=30), 100, 300.0, 0.4)
    young = Journal(tmp_path / "young.jsonl")
    young.request(Budget(minutes=60))
    young.add("segment", stage="vae", start=0, seconds=1400.0)
    young.shorten(Budget(minutes=30), 0, 0.0, 0.4)
    assert Journal(tmp_path / "young.jsonl").segments("vae")[-1].seconds == 700.0
    journal.add("decided", stage="denoiser", end=500, rate=1.0)
    with pytest.raises(UserError, match="too far on"):
        journal.shorten(Budget(minutes=39), 100, 300.0, 0.4)


def test_what_cannot_be_spread_over_processes_is_told_with_all_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.training.engine.distributed.world_size", lambda: 2)
    both = vae_objective(adversarial_weight=0.5)
    config = LoopConfig(sharding="fsdp", optimizer=OptimizerConfig(name="muon"))
    mends = "--set vae.training.optimizer.name=adamw --set vae.loss.adversarial_weight=0"
    mends += ", or --set vae.training.sharding=ddp"
    with pytest.raises(UserError, match="takes AdamW, no discriminator and no fp16: " + re.escape(mends) + "$"):
        Engine(both, config)
    with pytest.raises(UserError, match=r"no fp16: --set training.precision=bf16, or --set training.sharding=ddp$"):
        Engine(denoiser_objective(), LoopConfig(sharding="fsdp", precision="fp16"))
