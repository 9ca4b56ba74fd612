"""The curves show what was logged: right values, right order, inside their frame."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from calotype.inspection.report.curves import HEIGHT, WIDTH, Series, panel, series, smooth, thin
from calotype.inspection.report.learning import loss_by_noise


def path_of(html: str, kind: str) -> list[tuple[float, float]]:
    found = re.search(rf'<path class="{kind}" d="M([^"]*)"', html)
    assert found is not None
    return [(float(x), float(y)) for x, y in (pair.split() for pair in found.group(1).split("L"))]


def test_a_step_logged_twice_counts_once_and_other_stages_do_not_count() -> None:
    records = [
        {"stage": "vae", "step": 2, "loss": 5.0},
        {"stage": "vae", "step": 1, "loss": 7.0},
        {"stage": "vae", "step": 2, "loss": 4.0},
        {"stage": "denoiser", "step": 1, "loss": 9.0},
        {"stage": "vae", "step": 3, "loss": float("nan")},
        {"stage": "vae", "step": 3, "held_out_psnr": 20.0},
    ]
    assert series(records, "vae", "loss") == [(1.0, 7.0), (2.0, 4.0)]


@pytest.mark.parametrize("length", [10, 240, 241, 1000, 9999])
def test_thinning_keeps_the_mean_and_the_last_step(length: int) -> None:
    points = [(float(k), float(k % 7)) for k in range(length)]
    few = thin(points)
    assert len(few) <= 240
    assert few[-1][0] == length - 1
    assert sum(y for _, y in few) / len(few) == pytest.approx(sum(y for _, y in points) / length, abs=0.2)


def test_smoothing_leaves_straight_lines_alone() -> None:
    """A one-sided window would shift the ends of a sloping curve."""
    line = [(float(k), 3.0 - 0.5 * k) for k in range(100)]
    assert [y for _, y in smooth(line)] == pytest.approx([y for _, y in line])


@pytest.mark.parametrize("log", [False, True])
def test_larger_values_stand_higher_and_all_lies_in_the_frame(log: bool) -> None:
    values = [0.001, 1.0, 20.0, 0.4, 1000.0]
    html = panel("Loss", [Series("training", [(float(k), v) for k, v in enumerate(values)])], log=log)
    points = path_of(html, "t")
    by_value = sorted(zip(values, points, strict=True))
    heights = [y for _, (_, y) in by_value]
    assert heights == sorted(heights, reverse=True)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_equal_factors_are_equal_distances_on_a_logarithmic_axis() -> None:
    html = panel("Loss", [Series("", [(0.0, 1.0), (1.0, 10.0), (2.0, 100.0)])], log=True)
    (_, a), (_, b), (_, c) = path_of(html, "t")
    assert a - b == pytest.approx(b - c, abs=0.2)


def test_a_tick_stands_where_its_value_is_drawn() -> None:
    html = panel("Rate", [Series("", [(0.0, 100.0), (1.0, 200.0)])], from_zero=True)
    ticks = dict(re.findall(r'd="M44 ([\d.]+)H348"/><text [^>]*>([\d,.k]+)<', html))
    heights = {float(label): float(y) for y, label in ticks.items()}
    (_, low), (_, high) = path_of(html, "t")
    assert heights[100.0] == pytest.approx(low, abs=0.1)
    assert heights[200.0] == pytest.approx(high, abs=0.1)
    assert 0.0 in heights


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1.0, 1.0], [2.0, 2.0], [1e-9, 2e-9], [0.0, 0.0]])
def test_awkward_values_still_make_a_plot(values: list[float]) -> None:
    html = panel("KL", [Series("training", [(5.0, values[0]), (6.0, values[1])], noisy=True)], log=True)
    ET.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])
    assert "nan" not in html


def test_nothing_logged_is_no_panel() -> None:
    assert panel("Loss", [Series("training", []), Series("held out", [(1.0, 2.0)], kind="held")]) == ""


def test_the_spoken_label_and_the_legend_name_the_last_value() -> None:
    html = panel("PSNR", [Series("held out", [(0.0, 15.0), (900.0, 22.25)], kind="held")], unit="dB")
    assert 'aria-label="PSNR over 900 steps: held out from 15 to 22.2 dB."' in html
    assert '<span class="held value">held out 22.2 dB</span>' in html


def test_bins_of_noise_go_from_one_ink_to_the_other_and_are_told_by_their_ends() -> None:
    records = [
        {"stage": "denoiser", "step": step, "loss_by_noise": [0.9, None if step == 20 else 0.5, 1 / step]}
        for step in (10, 20, 30, 40, 42)
    ]
    lines = loss_by_noise(records)
    assert [line.tint for line in lines] == [0, 0.5, 1]
    assert [x for x, _ in lines[0].points] == [10, 20, 30, 40]  # the last two steps are too few
    assert [x for x, _ in lines[1].points] == [10, 30, 40]
    html = panel("Loss by noise", lines, log=True)
    inks = re.findall(r'<path class="t" style="stroke:color-mix\(in oklab, var\(--print\) (\d+)%', html)
    assert inks == ["0", "50", "100"]
    assert "least noise 0.900" in html
    assert html.count('<span class="train value"') == 2


def test_an_interval_is_a_band_around_its_line() -> None:
    points = [(0.0, 1.0), (1.0, 0.5)]
    low, high = ([(x, y + shift) for x, y in points] for shift in (-0.25, 0.25))
    html = panel("Distance", [Series("", points, low=low, high=high)])
    band, line = path_of(html, "band"), path_of(html, "t")
    assert [x for x, _ in band] == [line[0][0], line[1][0], line[1][0], line[0][0]]
    for (_, below), (_, y), (_, above) in zip(band[:2], line, reversed(band[2:]), strict=True):
        assert 0 < above < y < below < HEIGHT
