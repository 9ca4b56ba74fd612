"""A timed run keeps back what its own end will take."""

from __future__ import annotations

import torch

from calotype.pipeline import reserve
from calotype.recipes import get_recipe
from calotype.training.journal import Budget

CPU = torch.device("cpu")
SMALL = ["network.channels=[8, 16]", "network.emb_channels=16", "network.num_classes=2"]


def test_the_reserve_counts_the_recipes_own_passes(monkeypatch) -> None:
    """With a clock that says 0.1 s for each pass of 32 pictures: those of the last sheet, the report and the scores."""
    ticks = iter(range(1000))
    monkeypatch.setattr(reserve, "load_extractor", lambda device: lambda images: images)
    monkeypatch.setattr(reserve.time, "monotonic", lambda: 0.1 * next(ticks))
    for name, passes in (("ddpm-64", 1000), ("calotype", 20)):
        recipe = get_recipe(name, 64).with_overrides(SMALL)
        for minutes, prompts in ((4, 0), (25, 0 if passes == 1000 else 128), (60, 50 if passes == 1000 else 128)):
            found = reserve.plan_ending(recipe, CPU, Budget(minutes=minutes))
            seconds = 20 + 0.1 * passes * (32 + 56 + 1.7 * prompts) / 32 + 0.1 * (1100 + 2200) / 16 * (prompts > 0)
            assert found.prompts == prompts
            assert abs(found.seconds - seconds) < 1e-6


def test_guidance_doubles_the_rows_and_nothing_random_is_drawn(monkeypatch) -> None:
    rows = []
    forward = reserve.UNet.forward
    monkeypatch.setattr(reserve.UNet, "forward", lambda self, x, t: rows.append(len(x)) or forward(self, x, t))
    before = torch.random.get_rng_state()
    reserve.plan_ending(get_recipe("calotype", 64).with_overrides(SMALL), CPU, Budget(steps=4))
    reserve.plan_ending(
        get_recipe("calotype", 64).with_overrides([*SMALL, "sampling.guidance_scale=1"]), CPU, Budget(steps=4)
    )
    assert rows == [64, 64, 32, 32]
    assert torch.equal(torch.random.get_rng_state(), before)
