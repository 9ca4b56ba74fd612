"""`calotype doctor`: findings as lines or as JSON, exit status 0 whatever is found, 2 for what is nothing."""

import json
import sys
import types
from pathlib import Path

import pytest

from calotype.cli.main import run
from calotype.inspection.doctor.finding import Diagnosis, Finding

FINDINGS = (
    Finding("corrupt-bundle", "fault", "a file\nwas altered", "calotype train DATA", {"size": 3}),
    Finding("few-steps", "warning", "2 steps", "sample with --steps 20"),
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Diagnosis]:
    """What the doctor will say."""
    said = {"diagnosis": Diagnosis("run", "r", FINDINGS, ("bundle", "sampler"), {"running": False})}
    home = types.ModuleType("calotype.inspection.doctor")
    home.diagnose = lambda target, *, device, reporter: said["diagnosis"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "calotype.inspection.doctor", home)
    return said


def test_findings_are_lines_and_their_remedies_too(
    found: dict[str, Diagnosis], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "r"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fault    corrupt-bundle: a file was altered",
        "         > calotype train DATA",
        "warning  few-steps: 2 steps",
        "         > sample with --steps 20",
        "1 fault and 1 warning in 2 checks",
    ]


def test_nothing_amiss_is_one_line(found: dict[str, Diagnosis], capsys: pytest.CaptureFixture[str]) -> None:
    found["diagnosis"] = Diagnosis("run", "r", (), ("bundle", "sampler"), {})
    assert run(["doctor", "r"]) == 0
    assert capsys.readouterr().out == "nothing amiss in 2 checks\n"


def test_json_is_one_object_with_the_evidence(found: dict[str, Diagnosis], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "r", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in said["findings"]] == ["corrupt-bundle", "few-steps"]
    assert said["findings"][0]["evidence"] == {"size": 3}
    assert said["checked"] == ["bundle", "sampler"]


def test_what_is_nothing_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["doctor", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
