"""The report's section on the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from calotype.core.files import write_json
from calotype.inspection.report.lab import lab_section
from tests.inspection.report.fake_run import about


def one(key: str, words: str, passes: float, kernel: float) -> dict[str, Any]:
    scores = {"kernel": about(kernel), "frechet": 90.0, "fidelity": about(0.75), "cost": about(1.0)}
    return {"key": key, "words": words, "passes": passes, "seconds": 0.1, **scores}


def write_lab(run: Path) -> None:
    made = {"count": 256, "seed": 200_000, "reference": 900, "asked": "captions"}
    made |= {"extractor": {"name": "efficientnet-lite0", "sha256": "5" * 64}}
    settings = [one("a", "as it is", 40, 0.085), one("b", "guidance <2>", 40, 0.08), one("c", "10 steps", 20, 0.09)]
    summary = "Best of 3 settings: guidance <2>."
    write_json(run / "lab.json", {"made": made, "settings": settings, "front": ["b", "c"], "summary": summary})


def test_the_front_and_the_outcome_are_shown(tmp_path: Path) -> None:
    write_lab(tmp_path)
    section = lab_section(tmp_path)
    assert section is not None
    page = section.html()
    assert "Best of 3 settings: guidance &lt;2&gt;." in page
    front = page.split("<details>")[0]
    assert front.index("10 steps") < front.index("Guidance &lt;2&gt;")
    assert "As it is" not in front
    assert "as it is" in page
    assert "kernel distance 80.0 · 10⁻³, 75 % as asked, 40 passes" in page


def test_what_was_tried_before_more_training_is_not_shown(tmp_path: Path) -> None:
    write_lab(tmp_path)
    checkpoint = tmp_path / "denoiser" / "step-00000100"
    checkpoint.mkdir(parents=True)
    before, after = ((tmp_path / "lab.json").stat().st_mtime + late for late in (-60, 60))
    os.utime(checkpoint, (before, before))
    assert lab_section(tmp_path) is not None
    os.utime(checkpoint, (after, after))
    assert lab_section(tmp_path) is None


def test_nothing_tried_or_nothing_readable_is_no_section(tmp_path: Path) -> None:
    assert lab_section(tmp_path) is None
    (tmp_path / "lab.json").write_text("{")
    assert lab_section(tmp_path) is None
