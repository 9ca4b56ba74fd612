"""Every outcome is a line and an exit status; with --json one object on stdout."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from calotype.cli.main import run
from calotype.core.errors import CorruptFileError, UserError
from tests.cli.fakes import Model, Training

MEND = UserError("no such folder: photos", "check the path")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "PIL", "pydantic", "yaml", "onnxruntime"]
    code = f"import sys, calotype.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_is_quick(command) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for verb in ("quickstart", "train", "sample", "models"):
        assert verb in done.stdout
    assert after.ru_utime - before.ru_utime < 1


@pytest.mark.parametrize("verb", [[], ["quickstart"], ["train"], ["sample"], ["models"]])
def test_every_verb_explains_itself(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb, "--help"]) == 0
    assert "Usage: calotype" in capsys.readouterr().out


def test_bare_command_shows_help_and_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("calotype 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tarin"], "tarin"),
        (["train"], "DATA"),
        (["train", "photos", "--minuts", "3"], "--minuts"),
        (["train", "photos", "--minutes", "soon"], "--minutes"),
        (["train", "photos", "--minutes", "0"], "--minutes 0"),
        (["train", "photos", "--minutes", "nan"], "--minutes nan"),
        (["train", "photos", "--minutes", "3", "--steps", "3"], "--minutes and --steps"),
        (["train", "photos", "--steps", "0"], "--steps"),
        (["train", "photos", "--size", "-64"], "--size"),
        (["train", "photos", "--seed", "-1"], "--seed"),
        (["train", "photos", "--out", "taken"], "taken"),
        (["quickstart", "--minutes", "-1"], "--minutes"),
        (["quickstart", "more"], "more"),
        (["sample"], "MODEL"),
        (["sample", "runs/x", "-n", "0"], "-n"),
        (["sample", "runs/x", "--steps", "0"], "--steps"),
        (["sample", "runs/x", "--guidance", "inf"], "--guidance"),
        (["sample", "runs/x", "--out", "taken"], "taken"),
    ],
)
@pytest.mark.usefixtures("model", "training")
def test_a_wrong_command_line_is_one_line_and_2(
    arguments: list[str], said: str, here, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "taken").touch()
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert run([*arguments, "--json"]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MEND, 2, "error: no such folder: photos: check the path"),
        (CorruptFileError("model.json\nis \x1b[31mmissing"), 2, "error: model.json is  [31mmissing"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), 2, "error: the disk is full (writing a/b): free"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "error: the disk is full: free"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "error: /root/x: permission denied: choose"),
        (KeyboardInterrupt(), 1, "interrupted: "),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "internal error: FileNotFoundError: "),
        (ValueError("several\nlines"), 1, "internal error: ValueError: several lines (the traceback is in "),
    ],
)
def test_a_failure_is_one_line_and_its_status(
    training: Training, error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training.error = error
    for as_json in ([], ["--json"]):
        assert run(["train", "photos", *as_json]) == status
        shown = capsys.readouterr()
        assert shown.err.splitlines()[-1].startswith(said)
        assert "Traceback" not in shown.err
        if as_json:
            assert json.loads(shown.out)["error"].startswith(said.removeprefix("error: "))
        else:
            assert shown.out == ""


def test_the_traceback_of_an_internal_error_is_kept(
    training: Training, here, capsys: pytest.CaptureFixture[str]
) -> None:
    training.error = ZeroDivisionError("by nought")
    assert run(["train", "photos"]) == 1
    path = capsys.readouterr().err.rstrip().removesuffix(")").rpartition(" ")[2]
    text = (here / path).read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: by nought" in text


def test_a_warning_is_one_line(model: Model, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import warnings

    plain = model.sample

    def warning(*arguments, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("3 captions were\ncut", UserWarning, stacklevel=1)
        return plain(*arguments, **settings)

    monkeypatch.setattr(model, "sample", warning)
    assert run(["sample", "runs/x", "a cat"]) == 0
    assert "warning: 3 captions were cut\n" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "calotype", "--help"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == ""
