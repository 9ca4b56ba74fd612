"""Intervals hold the truth about as often as they say: a small version of benchmarks/coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from calotype.evaluation import Estimate

SIMULATIONS = 300
LEAST, MOST = 0.91, 0.99  # 95 % of 300, three standard errors either way


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "decay"), [("equal", 0.5), ("near", 0.0), ("far", 0.5), ("wider", 1.0)])
def test_the_kernel_distance(script: ModuleType, kind: str, decay: float) -> None:
    p, q = script.pair(32, kind, decay)
    truth = script.true_kernel_distance(p, q)
    found = script.coverage(partial(script.kernel, p, q, 64, 64), {"kernel": truth}, SIMULATIONS)["kernel"]
    assert LEAST <= found["coverage"] <= MOST
    assert found["mean"] == pytest.approx(truth, abs=4 * found["deviation"] / SIMULATIONS**0.5)


def test_shares_of_prompts(script: ModuleType) -> None:
    for mean, prompts, images, alike in ((0.2, 32, 4, 0.6), (0.97, 192, 4, 0.1), (0.6, 64, 1, 0.0)):
        simulate = partial(script.shares, mean, prompts, images, alike)
        assert LEAST <= script.coverage(simulate, {"share": mean}, SIMULATIONS)["share"]["coverage"] <= MOST


def test_retrieval(script: ModuleType) -> None:
    table = script.coverage(partial(script.retrieval, 1.8, 32, 4), {}, SIMULATIONS)
    for score in ("top1", "top5"):
        assert 0.1 < table[score]["truth"] < 0.9
        assert LEAST <= table[score]["coverage"] <= MOST


def test_support_is_on_the_safe_side(script: ModuleType) -> None:
    table = script.coverage(partial(script.supported, *script.pair(8, "wider", 0.5), 60), {}, 150)
    assert min(row["coverage"] for row in table.values()) >= 0.93


def test_frechet(script: ModuleType) -> None:
    p, q = script.pair(6, "far", 0.5)
    truth = script.true_frechet(p, q)
    table = script.coverage(partial(script.frechet, p, q, 100), {"at_infinity": truth}, 150)
    assert min(row["coverage"] for row in table.values()) >= 0.88
    assert abs(table["at_infinity"]["mean"] - truth) < 0.3 * abs(table["at_count"]["mean"] - truth)


@pytest.mark.parametrize("factor", [0.7, 1.6])
def test_a_wrong_interval_would_be_noticed(script: ModuleType, factor: float) -> None:
    p, q = script.pair(32, "near", 0.5)

    def wrong(generator: torch.Generator) -> dict[str, Estimate]:
        found = script.kernel(p, q, 64, 64, generator)["kernel"]
        low, high = (found.value + factor * (end - found.value) for end in (found.low, found.high))
        return {"kernel": replace(found, low=low, high=high)}

    found = script.coverage(wrong, {"kernel": script.true_kernel_distance(p, q)}, SIMULATIONS)
    assert not LEAST <= found["kernel"]["coverage"] <= MOST
