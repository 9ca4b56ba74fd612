"""Planted curves, and what is said of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calotype.core.files import write_json
from calotype.inspection.outlook import Outlook, outlook, outlook_of
from calotype.training.journal import Journal

Shape = Callable[[int], float]
STEPS = range(500, 4001, 500)


def planted(lr: Shape | None = None, **shapes: Shape) -> list[dict[str, Any]]:
    """Records of a run: losses with the learning rate (one that falls to zero at the end), and measures by step."""
    rate = lr or (lambda step: min(1.0, (4000 - step) / 1600))
    records: list[dict[str, Any]] = [{"stage": "vae", "step": 500, "held_out_psnr": 20.0}]
    for step in STEPS:
        records.append({"stage": "denoiser", "step": step, "loss": 1.0, "lr": 4e-3 * rate(step)})
        measures = {name: shape(step) for name, shape in shapes.items()}
        records.append({"stage": "denoiser", "step": step, **measures})
    return records


def power(start: float, per_doubling: float, floor: float = 0.0) -> Shape:
    """Falls by a share with every doubling of the steps."""
    return lambda step: floor + (start - floor) * (1 - per_doubling) ** math.log2(step / 500)


def flat(value: float) -> Shape:
    return lambda step: value


def valley(lowest: float, at: int, rise: float) -> Shape:
    """Falls until a step, then rises by a share with every doubling."""
    return lambda step: lowest * (1 + (rise if step > at else 0.2) * abs(math.log2(step / at)))


@pytest.mark.parametrize(
    ("verdict", "shapes"),
    [
        ("more helps", {"held_out_error": power(0.4, 0.1), "train_error": power(0.38, 0.12)}),
        ("more helps", {"train_error": power(0.4, 0.1)}),
        (
            "more helps",
            {"held_out_error": flat(0.3), "train_error": flat(0.3), "kernel_distance": power(0.1, 0.3)},
        ),
        ("little left", {"held_out_error": power(0.4, 0.005), "train_error": power(0.4, 0.01)}),
        ("little left", {"held_out_error": flat(0.3), "train_error": power(0.3, 0.3)}),
        (
            "little left",
            {"held_out_error": power(0.3, 0.03), "train_error": flat(0.3), "kernel_distance": power(0.02, -0.3)},
        ),
        ("little left", {"held_out_error": flat(0.3), "train_error": flat(0.3), "kernel_distance": flat(-0.001)}),
        ("overfits", {"held_out_error": valley(0.3, 1000, 0.1), "train_error": power(0.3, 0.4)}),
        ("overfits", {"held_out_error": power(0.3, -0.1), "train_error": power(0.1, 0.4)}),  # from the first one on
        (
            "overfits",
            {
                "held_out_error": valley(0.3, 1000, 0.1),
                "train_error": power(0.3, 0.4),
                "kernel_distance": power(0.1, 0.3),
            },
        ),
    ],
)
def test_each_shape_gets_its_verdict(verdict: str, shapes: dict[str, Shape]) -> None:
    found = outlook(planted(**shapes))
    assert found.verdict == verdict, found.sentence
    json.dumps(found.plain(), allow_nan=False)
    if verdict != "overfits":
        assert found.evidence["since"] == 2000
    for name, shape in shapes.items():
        assert found.evidence[name] == pytest.approx(shape(4000))
        assert found.evidence[f"{name}_before"] == pytest.approx(shape(2000))


@pytest.mark.parametrize("name", ["held_out_error", "train_error", "kernel_distance"])
@pytest.mark.parametrize("gain", [0.3, 0.05, -0.2])
def test_the_gain_is_that_of_a_doubling(name: str, gain: float) -> None:
    records = planted(**({"train_error": flat(0.3)} | {name: power(0.4, gain)}))
    assert outlook(records).evidence[f"{name}_gain"] == pytest.approx(gain)
    uneven = [record for record in records if record["step"] != 2000 or "lr" in record]  # then it is from 2,500 on
    assert outlook(uneven).evidence[f"{name}_gain"] == pytest.approx(gain)


def test_the_numbers_are_said() -> None:
    heart = outlook(planted(held_out_error=valley(0.3, 1000, 0.1), train_error=power(0.3, 0.4)))
    assert heart.sentence == (
        "It learns its pictures by heart: since step 1,000 the error on held-out pictures has risen from 0.3 to 0.36, "
        "while on training pictures it fell from 0.18 to 0.0648. For new things more pictures help, not more time."
    )
    assert heart.evidence["best_step"] == 1000
    shapes = {"held_out_error": valley(0.3, 1000, 0.1), "train_error": power(0.3, 0.4)}
    seen = outlook(planted(**shapes, kernel_distance=power(0.1, 0.3)))
    assert "still makes what it knows look better (the kernel distance of its samples fell from" in seen.sentence
    more = outlook(planted(held_out_error=power(0.4, 0.1), train_error=power(0.38, 0.12)))
    assert more.sentence == (
        "More training helps: from step 2,000 to 4,000 the error on held-out pictures fell from 0.324 to 0.292. "
        "Twice as long may bring as much again."
    )
    assert "how much of it is memory cannot be told" in outlook(planted(train_error=power(0.4, 0.1))).sentence
    little = outlook(planted(held_out_error=flat(0.3), train_error=power(0.3, 0.3))).sentence
    assert "What it still learns it learns by heart: the error on training pictures fell from 0.147 to" in little


def test_roughness_alone_is_no_rise() -> None:
    """Over 200 curves whose points are rough by 1 %."""
    draw = random.Random(0)
    for _ in range(200):
        rough = {name: lambda step: 0.3 * (1 + draw.gauss(0, 0.01)) for name in ("held_out_error", "train_error")}
        assert outlook(planted(**rough)).verdict != "overfits"


def test_of_few_held_out_pictures_a_small_rise_is_not_believed() -> None:
    records = planted(held_out_error=valley(0.3, 1000, 0.04), train_error=power(0.3, 0.4))
    assert outlook(records, held_out=100).verdict == "overfits"
    assert outlook(records, held_out=4).verdict == "little left"


def test_it_is_too_early_before_two_validations_and_while_the_rate_is_high() -> None:
    records = planted(held_out_error=power(0.4, 0.1), train_error=power(0.4, 0.1))
    assert outlook([]).verdict == "too early"
    assert "no validation yet" in outlook(records[:1]).sentence
    assert "one validation so far, at step 500" in outlook(records[:3]).sentence
    assert outlook(records[:5]).verdict == "more helps"
    resting = {"held_out_error": flat(0.3), "train_error": flat(0.3)}
    high = planted(lr=flat(1.0), **resting)
    assert outlook(high).verdict == "too early"
    assert "still high" in outlook(high).sentence
    assert outlook(high, finished=True).verdict == "little left"  # a run without a decay
    assert outlook(planted(**resting), finished=False).verdict == "too early"


def test_what_is_not_a_number_or_came_twice_is_passed_over() -> None:
    records = planted(held_out_error=power(0.4, 0.1), train_error=power(0.4, 0.1))
    again = [{"stage": "denoiser", "step": 4000, "held_out_error": 0.29, "train_error": 0.29}]
    broken = [{"stage": "denoiser", "step": 4100, "held_out_error": math.nan, "train_error": None, "loss": "x"}]
    found = outlook([*records, *again, *broken])
    assert (found.verdict, found.evidence["step"], found.evidence["held_out_error"]) == ("more helps", 4000, 0.29)
    first = [{"stage": "denoiser", "step": step, "train_error": 0.3} for step in (0, 1)]
    assert isinstance(outlook(first), Outlook)


def test_a_run_says_itself_what_is_known_of_it(tmp_path: Path) -> None:
    records = planted(lr=flat(1.0), held_out_error=flat(0.3), train_error=flat(0.3))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert outlook_of(tmp_path).verdict == "too early"
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("segment", stage="denoiser", start=0, end=4000)
    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data" / "data.json", {"held_out": 50})
    assert outlook_of(tmp_path).verdict == "little left"
    journal.add("segment", stage="denoiser", start=4000, end=8000)
    assert outlook_of(tmp_path).verdict == "too early"
    (tmp_path / "journal.jsonl").write_text("spoilt\n")
    assert outlook_of(tmp_path).verdict == "too early"
    assert outlook_of(tmp_path / "nowhere").verdict == "too early"
