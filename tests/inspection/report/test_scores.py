"""Scores stand where they are, beside what could be had, with everything they depend on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calotype.inspection.report.scale import WIDTH, Scale
from calotype.inspection.report.scores import memory_in_short, memory_section, scores_section
from tests.inspection.report.fake_run import about, write_scores


def places(html: str) -> dict[str, float]:
    """Where on a scale the dot, the ends of the interval and the marks stand."""
    found = {
        "dot": re.search(r'class="dot" cx="([\d.]+)"', html),
        "low": re.search(r'class="span" d="M([\d.]+) ', html),
        "high": re.search(r'class="span" d="M[\d.]+ [\d.]+H([\d.]+)"', html),
        "ceiling": re.search(r'<circle class="mark" cx="([\d.]+)"', html),
        "floor": re.search(r'class="mark solid" d="M([\d.]+) ', html),
        "chance": re.search(r'class="mark" d="M([\d.]+) ', html),
    }
    return {name: float(match[1]) for name, match in found.items() if match}


def test_further_right_is_better_whatever_is_measured() -> None:
    marks = {"ceiling": ("reconstructions", 0.06), "floor": ("real", 0.01)}
    at = places(Scale("Distance", "", about(0.3), "low", marks).html())
    assert at["low"] < at["dot"] < at["high"] < at["ceiling"] < at["floor"]
    marks = {"ceiling": ("reconstructions", 0.8), "chance": ("chance", 0.05)}
    at = places(Scale("Top 5", "", about(0.5), "high", marks, share=True).html())
    assert at["chance"] < at["low"] < at["dot"] < at["high"] < at["ceiling"]


def test_a_share_has_the_whole_scale_from_none_to_all() -> None:
    at = places(Scale("Precision", "", {"value": 0.5, "low": 0.0, "high": 1.0, "count": 3}, "high", {}, True).html())
    assert at["dot"] == WIDTH / 2
    assert at["low"] == pytest.approx(WIDTH - at["high"])
    assert 0 < at["low"] < at["high"] < WIDTH


@pytest.mark.parametrize("value", [0.0, -0.01, 1e-9, 400.0, 1.7])
def test_awkward_estimates_stay_on_the_scale(value: float) -> None:
    for share in (False, True):
        html = Scale("x", "", about(value), "low", {"floor": ("real", 0.0)}, share).html()
        assert all(0 <= x <= WIDTH for x in places(html).values())
        assert "nan" not in html


def test_a_scale_can_be_read_aloud() -> None:
    html = Scale("Top 5", "", about(0.5), "high", {"chance": ("chance", 0.05)}, share=True).html()
    assert 'aria-label="Top 5 50%, 95 % interval 48% to 52%; chance 5%; higher is better"' in html
    assert "48% to 52%, N 96" in html


def test_the_scores_say_what_they_depend_on(tmp_path: Path) -> None:
    section = scores_section(write_scores(tmp_path))
    assert section is not None
    html = section.html()
    assert html.count('<div class="score">') == 7 + 2
    assert (
        "96 pictures of training captions, seeds 100,000 to 100,095; dpm++2m, 20 steps, guidance 2.5, "
        "threshold dynamic, averaged weights; features of efficientnet-lite0 (sha256 579357935793)."
    ) in html
    assert "<span>reconstructions 0.0600</span>, <span>real 0.0100</span>" in html
    assert "its own picture is among the five likest of 100" in html


def test_a_class_model_is_told_class_by_class(tmp_path: Path) -> None:
    classes = {"right": about(0.9), "ceiling": about(0.95), "real": None, "chance": 0.25}
    classes["by_class"] = {"<cat>": about(1.0, 0.0, 7)}
    fidelity = {"captions": None, "held_out_captions": None, "classes": classes}
    section = scores_section(write_scores(tmp_path, fidelity=fidelity))
    assert section is not None
    assert "&lt;cat&gt;</th><td>100% (100 to 100), N 7" in section.html()


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    nothing = {"samples": None, "ceiling": None, "floor": None, "reference": 3}
    fidelity = {"captions": None, "held_out_captions": None, "classes": None}
    unknown = {"verdict": "unknown", "summary": "", "pixels": None, "features": None}
    record = write_scores(tmp_path, distances=nothing, fidelity=fidelity, memorization=unknown, nearest=[])
    assert scores_section(record) is None
    section = memory_section(record)
    assert section is not None
    assert "cannot be told" in section.heading
    assert "too few pictures" in section.html()
    assert (scores_section(None), memory_section(None), memory_in_short(None)) == (None, None, "")


@pytest.mark.parametrize(
    ("verdict", "heading"), [("memory", "It mostly remembers"), ("new", "Its pictures are new"), ("partly", "Some of")]
)
def test_the_verdict_on_memory_is_said_in_plain_words(tmp_path: Path, verdict: str, heading: str) -> None:
    record = write_scores(tmp_path, verdict)
    section = memory_section(record)
    assert section is not None
    assert section.heading.startswith(heading)
    html = section.html()
    assert "75% of the samples are &lt;copies&gt;." in html
    assert memory_in_short(record) == "75% of the samples are <copies>."
    assert html.count('<div class="score">') == 3
    assert '<th scope="row">thing 1</th><td>001.png, distance 0.10, a copy</td>' in html
