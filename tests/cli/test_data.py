"""`calotype data`: words on stderr, the survey on stdout, one line where there is nothing to look at."""

import json
from pathlib import Path

import pytest

from calotype.cli.main import run
from tests.images.making import fill, noise_png


def pets(count: int) -> Path:
    files: dict[str, bytes | str] = {f"{seed}.png": noise_png(seed) for seed in range(count)}
    return fill(Path("pets"), files | {"bad\x07.png": "x", "0.txt": "a cat " + "of a long and winding tail " * 30})


def test_the_survey_is_laid_out_and_hostile_names_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pets(9)
    assert run(["data", "pets", "--size", "16", "--set", "data.duplicates=drop-near"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "pictures   9 of 16 px, from pets"
    assert "files      9 readable, 1 refused" in lines
    assert lines[-2] == "look at    runs/data-pets/contact-sheet.png"
    assert lines[-1] == "go on      calotype train pets --size 16 --set data.duplicates=drop-near"
    assert Path("runs/data-pets/contact-sheet.png").is_file()
    assert max(map(len, lines)) <= 100
    assert "\x07" not in shown.out
    assert "pictures: pets, 10 files at 16 px" in shown.err
    assert all(line[:11].strip() == "" or line[10] == " " for line in lines)


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    pets(3)
    assert run(["data", "pets", "--size", "16", "--out", "seen", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("seen/survey.json").read_text())
    assert found["verdict"]["good_for"].startswith("3 pictures")
    assert {"what", "action"} == found["verdict"]["mend"][0].keys()


def test_nothing_readable_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    pets(0)
    assert run(["data", "pets"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    error = shown.err.splitlines()[-1]
    assert error.startswith("error: pets: none of 1 files can be read")
    assert error.endswith("all are listed in runs/data-pets/quarantine.jsonl")


@pytest.mark.parametrize("words", [["nowhere"], ["pets", "--set", "data.crop=left"], ["pets", "--out", "pets/0.txt"]])
def test_wrong_input_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pets(3)
    assert run(["data", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
