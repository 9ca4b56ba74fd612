"""A folder of pictures becomes a model and its pictures, from the command line alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.cli.main import run

TINY = ["--size", "32", "--steps", "2", "--set", "vae.steps=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures and a file that is none, trained on for two steps of each stage."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "photos").mkdir()
    shades = np.random.default_rng(0).integers(0, 256, (12, 40, 48, 3), dtype=np.uint8)
    for place, pixels in enumerate(shades):
        Image.fromarray(pixels).save(folder / "photos" / f"{place}.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    assert run(["train", str(folder / "photos"), "--out", str(folder / "run"), *TINY]) == 0
    return folder


@pytest.fixture
def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict, str]]:
    """Run a command line with --json: (status, the object on stdout, stderr)."""

    def tell(*arguments: str) -> tuple[int, dict, str]:
        status = run([*arguments, "--json"])
        shown = capsys.readouterr()
        return status, json.loads(shown.out), shown.err

    return tell


def test_a_run_folder_holds_what_it_should(folder: Path) -> None:
    names = {path.name for path in (folder / "run").iterdir()}
    assert names >= {"config.yaml", "journal.jsonl", "metrics.jsonl", "report.html", "data", "vae", "denoiser", "model"}
    refused = (folder / "run" / "data" / "quarantine.jsonl").read_text().splitlines()
    assert len(refused) == 1
    assert "broken.jpg" in refused[0]


def test_the_same_command_finds_it_done(folder: Path, told) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "run" / "model").iterdir()}
    status, result, _ = told("train", str(folder / "photos"), "--out", str(folder / "run"), *TINY)
    assert status == 0
    assert Path(result["report"]).is_file()
    assert result["metrics"]["vae"]["step"] == 2
    assert result["metrics"]["denoiser"]["step"] == 2
    assert {path: path.stat().st_mtime_ns for path in (folder / "run" / "model").iterdir()} == before


def test_it_draws_and_films(folder: Path, told) -> None:
    status, result, _ = told("sample", str(folder / "run"), "-n", "2", "--seed", "7", "--steps", "3", "--film")
    assert status == 0
    assert [entry["seed"] for entry in result["pictures"]] == [7, 8]
    for entry, film in zip(result["pictures"], result["films"], strict=True):
        with Image.open(entry["path"]) as picture, Image.open(film["gif"]) as gif:
            assert picture.size == gif.size == (32, 32)
            assert picture.text["seed"] == str(entry["seed"])
            assert gif.n_frames > 1


def test_a_seed_is_a_picture(folder: Path, told) -> None:
    among = told("sample", str(folder / "run"), "-n", "4", "--seed", "4", "--steps", "3")[1]["pictures"][3]
    alone = told("sample", str(folder / "run"), "--seed", "7", "--steps", "3")[1]["pictures"][0]
    with Image.open(among["path"]) as one, Image.open(alone["path"]) as other:
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "{run}", "a cat"], "no prompt"),
        (["sample", "{run}", "--label", "cat"], "no classes"),
        (["sample", "{run}", "--sampler", "ddpmm"], "'ddpm'"),
        (["sample", "{run}", "--device", "abacus"], "abacus"),
        (["sample", "{run}", "-n", "65", "--film"], "65"),
        (["sample", "nowhere"], "nowhere"),
        (["train", "nowhere"], "nowhere"),
        (["train", "{photos}", "--recipe", "calotipe"], "'calotype'"),
        (["train", "{photos}", "--out", "new", "--set", "vae.stepz=3"], "'vae.steps'"),
        (["train", "{photos}", "--out", "{run}", *TINY, "--seed", "3"], "seed"),
        (["train", "{empty}", "--out", "new"], "empty"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], said: str, folder: Path, here: Path, told) -> None:
    (here / "empty").mkdir()
    places = {"run": folder / "run", "photos": folder / "photos", "empty": here / "empty"}
    status, result, words = told(*(word.format(**places) for word in arguments))
    assert status == 2
    assert said in result["error"]
    assert words.rstrip().splitlines()[-1] == f"error: {result['error']}"
    assert [path for path in here.rglob("*") if path.is_file() and path.name != ".lock"] == []
