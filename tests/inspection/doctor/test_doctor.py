"""Every planted fault gets its name, and what is whole gets none."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.cli.progress import PlainReporter
from calotype.core.errors import UserError
from calotype.inspection.doctor import Diagnosis, Finding, diagnose
from calotype.inspection.doctor.words import beyond_chance
from calotype.pipeline import Run
from tests.inspection.doctor.planting import COLOURS, IN_DATA, IN_RUNS, drawing, paint

NAMED_BY = {
    "course": {"nan-skips", "loss-spike", "learning-rate-high"},
    "words": {"condition-unheard"},
    "learning": {"overfitting", "ema-young", "hardly-trained", "learning-rate-low", "learning-rate-high"},
    "latents": {"latent-scale", "dead-channel", "vae-undertrained"},
    "sampling": {"terminal-snr", "bundle-settings", "guidance-untrained", "guidance-range", "few-steps"}
    | {"untrained-levels"},
    "samples": {"tint", "saturated-guidance"},
    "files": {"corrupt-checkpoint", "corrupt-bundle", "corrupt-latents", "corrupt-journal", "corrupt-config"}
    | {"corrupt-data", "unfinished", "missing-bundle", "stale-bundle"},
}


def names(diagnosis: Diagnosis) -> set[str]:
    return {finding.name for finding in diagnosis.findings}


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_ctime_ns) for p in files}


def test_of_a_run_with_nothing_amiss_nothing_is_said_and_nothing_changes(healthy: Run) -> None:
    before = state(healthy.folder)
    found = diagnose(healthy.folder, device="cpu")
    assert found.findings == ()
    assert found.kind == "run"
    assert len(found.checked) > 30
    assert found.summary == f"nothing amiss in {len(found.checked)} checks"
    assert found.facts["steps"] == {"vae": 140, "denoiser": 120}
    assert state(healthy.folder) == before


def test_it_tells_what_it_looks_at_in_one_line(healthy: Run) -> None:
    stream = io.StringIO()
    diagnose(healthy.folder, device="cpu", reporter=PlainReporter(stream), themes=("files", "course"))
    assert stream.getvalue() == "doctor: files, course\n"


def test_of_its_model_and_its_pictures_too(healthy: Run) -> None:
    model = diagnose(healthy.model, device="cpu")
    assert (model.kind, model.findings) == ("model", ())
    assert {"terminal-snr", "bundle", "saturated-guidance"} <= set(model.checked)


@pytest.mark.parametrize("fault", IN_RUNS)
def test_a_fault_in_a_run_is_named(fault: str, run: Run) -> None:
    plant, expected, also = IN_RUNS[fault]
    plant(run)
    themes = [theme for theme, named in NAMED_BY.items() if expected in named]
    found = diagnose(run.folder, device="cpu", themes=themes)  # all of them: benchmarks/doctor.py
    assert expected in names(found)
    assert names(found) - {expected} <= also
    finding = next(finding for finding in found.findings if finding.name == expected)
    assert finding.what
    assert finding.remedy
    json.dumps(found.plain())


@pytest.mark.parametrize("fault", IN_DATA)
def test_a_fault_in_a_set_of_pictures_is_named(fault: str, pictures: Path) -> None:
    plant, expected, also = IN_DATA[fault]
    plant(pictures)
    found = diagnose(pictures, device="cpu")
    assert found.kind == "data"
    assert expected in names(found)
    assert names(found) - {expected} <= also | {"enlarged"}


def test_of_a_set_that_is_whole_only_its_size_is_said(pictures: Path) -> None:
    assert names(diagnose(pictures, device="cpu")) == {"enlarged"}  # it is looked at as it would be trained on: at 64


def test_classes_that_differ_in_shape_alone_belong_to_their_pictures(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for k in range(120):
        kind = ("disc", "square")[k % 2]
        (tmp_path / kind).mkdir(exist_ok=True)
        drawing(draw, str(draw.choice(list(COLOURS))), kind).save(tmp_path / kind / f"{k}.png")
    found = diagnose(tmp_path, device="cpu", themes=["words"])
    assert "words-and-pictures" in found.checked
    assert names(found) == set()


def test_a_disk_that_is_nearly_full_is_told(healthy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(healthy.folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=100_000))
    assert names(diagnose(healthy.folder, device="cpu", themes=["files"])) == {"disk"}


def test_a_spike_is_told_with_its_step_its_noise_and_its_pictures(run: Run) -> None:
    IN_RUNS["a spike"][0](run)
    (finding,) = diagnose(run.folder, device="cpu", themes=["course"]).findings
    assert finding.evidence["step"] == 80
    assert finding.evidence["noise_bin"] == 6
    assert set(finding.evidence["samples"]) <= {f"{k:03}.png" for k in range(200)}
    assert finding.evidence["samples"]


def test_faults_come_before_warnings(run: Run) -> None:
    for fault in ("too few steps", "guidance that was not learned"):
        IN_RUNS[fault][0](run)
    found = diagnose(run.folder, device="cpu", themes=["sampling"])
    assert [finding.name for finding in found.findings] == ["guidance-untrained", "few-steps"]


def test_what_is_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        diagnose(tmp_path / "nothing")
    shutil.copytree(paint(tmp_path / "few", 2), tmp_path / "run")
    (tmp_path / "run" / "journal.jsonl").touch()
    with pytest.raises(UserError, match="lost its config"):
        diagnose(tmp_path / "run")


@pytest.mark.parametrize(("strength", "low", "high"), [(0.0, -4, 4), (1.0, 8, 1e9)])
def test_likeness_of_neighbours_is_measured_from_chance(strength: float, low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(4, (200,), generator=generator)
    rows = torch.randn(200, 16, generator=generator) + strength * torch.eye(4).repeat(1, 4)[group]
    near = (group[:, None] == group).fill_diagonal_(False)
    score, _ = beyond_chance(near, torch.corrcoef(rows))
    assert low < score < high


def test_a_diagnosis_is_told_in_a_line() -> None:
    findings = (Finding("a", "fault", "x", "y"), Finding("b", "warning", "x", "y"), Finding("c", "warning", "x", "y"))
    found: Callable[..., Diagnosis] = lambda *which: Diagnosis("run", "r", which, ("one", "two", "three"), {})  # noqa: E731
    assert found(*findings).summary == "1 fault and 2 warnings in 3 checks"
    assert found(findings[1]).summary == "1 warning in 3 checks"
