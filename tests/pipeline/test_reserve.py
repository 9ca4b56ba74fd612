"""A timed run keeps back what its own end will take."""

from __future__ import annotations

import torch

from calotype.pipeline import reserve
from calotype.recipes import get_recipe

CPU = torch.device("cpu")
SMALL = ["network.channels=[8, 16]", "network.emb_channels=16", "network.num_classes=2"]


def test_the_reserve_counts_the_recipes_own_passes(monkeypatch) -> None:
    """With a clock that says 0.1 s for each pass: 8 s, then the sampler's passes and the report's 2 x 20."""
    ticks = iter(range(100))
    monkeypatch.setattr(reserve.time, "monotonic", lambda: 0.1 * next(ticks))
    for name, passes in (("ddpm-64", 1000), ("calotype", 20)):
        recipe = get_recipe(name, 64).with_overrides(SMALL)
        assert abs(reserve.finish_seconds(recipe, CPU) - (8 + 0.1 * (passes + 40))) < 1e-6


def test_guidance_doubles_the_rows_and_nothing_random_is_drawn(monkeypatch) -> None:
    rows = []
    forward = reserve.UNet.forward
    monkeypatch.setattr(reserve.UNet, "forward", lambda self, x, t: rows.append(len(x)) or forward(self, x, t))
    before = torch.random.get_rng_state()
    reserve.finish_seconds(get_recipe("calotype", 64).with_overrides(SMALL), CPU)
    reserve.finish_seconds(get_recipe("calotype", 64).with_overrides([*SMALL, "sampling.guidance_scale=1"]), CPU)
    assert rows == [64, 64, 32, 32]
    assert torch.equal(torch.random.get_rng_state(), before)
