"""`calotype plan`: one screen of aligned lines, a table on a terminal, one JSON object, one line of what is wrong."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from calotype.cli import plan
from calotype.cli.main import run
from tests.pipeline.conftest import QUICK, paint

WORDS = ["plan", "shapes", "--size", "32", "--steps", "4", "--device", "cpu", "--set", "sampling.num_steps=2"]
WORDS += [word for setting in QUICK for word in ("--set", setting)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.inspection.preflight.costs.LONGEST", 0.5)
    monkeypatch.setattr("calotype.inspection.preflight.costs.TIMED", 0.01)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


def test_a_plan_is_one_screen_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(here / "shapes")
    assert run([*WORDS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [name for name in os.listdir(here) if not name.startswith("torchinductor")] == ["shapes"]
    assert found["stages"]["vae"]["steps"] == 6
    assert found["stages"]["denoiser"]["steps"] == 4
    lines = plan._plain(found)
    assert len(lines) <= 24
    assert lines[0] == "data        shapes, 16 files, at 32 px"
    header = lines.index(next(line for line in lines if line.startswith("part ")))
    table = lines[header : lines.index("", header)]
    parts = ["pictures", "vae", "validation", "preview", "checkpoint", "latents", "denoiser"]
    assert [line.split()[0] for line in table[1:]] == [*parts, *parts[2:5], "end"]
    in_all = {line.split()[0]: line for line in table[1:]}
    assert ": at most " in in_all["vae"], "its discriminator is counted from the first step"
    assert "at most" not in in_all["denoiser"]
    timed = plan._plain(found | {"budget": "--minutes 3"})
    assert [line.split()[0] for line in timed if "at least" in line] == ["vae"]
    for heading in ("memory", "in the whole run"):
        column = table[0].index(heading)
        assert all(line[column - 2 : column].strip() == "" for line in table)
    assert lines[-1].startswith("go on       calotype train shapes --recipe calotype --size 32 --steps 4 --device cpu")
    assert "verdict     fits" in lines
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    plan._show(found)
    for text in ("in the whole run", "─", "vae", found["train"]):
        assert text in shown.getvalue()


def test_a_plan_that_could_not_be_measured_to_the_end_says_why(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(here / "shapes")
    monkeypatch.setattr("calotype.inspection.preflight.costs.room", lambda device: 1_000_000)
    assert run(WORDS) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("verdict     does not fit")
    assert "memory does not suffice for training 547,688 weights of the vae" in lines[place + 1]
    assert lines[place + 2] == "            > choose a smaller --size or network"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nowhere"], "nowhere"),
        (["shapes", "--minutes", "3", "--steps", "4"], "both given"),
        (["shapes", "--minutes", "-1"], "no time to train"),
        (["shapes", "--recipe", "calotip"], "did you mean 'calotype'"),
        (["shapes", "--out", "shapes/disc/0.png"], "is a file"),
    ],
)
def test_wrong_input_is_one_line(here: Path, words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    paint(here / "shapes")
    assert run(["plan", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert what in shown.err.splitlines()[-1]
    assert os.listdir(here) == ["shapes"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.04 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (18_720, "5 h 12 min"),
        (276_480, "3.2 days"),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert plan.duration(seconds) == words
