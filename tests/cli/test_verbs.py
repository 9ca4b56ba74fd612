"""What each verb hands on, writes and prints."""

import json
from pathlib import Path

import pytest
from PIL import Image

from calotype.cli.main import run
from calotype.core.errors import UserError
from calotype.images.grid import read_settings
from tests.cli.fakes import Model, Training


def test_train_hands_on_every_option(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train photos --recipe ddpm-64 --out runs/mine --size 32 --steps 9 --from runs/old --seed 5 --device cpu"
    assert (
        run(
            [
                *words.split(),
                "--set",
                "training.lr=1e-3",
                "--set",
                "vae.steps=4",
                "--track",
                "tensorboard",
                "--track",
                "wandb",
            ]
        )
        == 0
    )
    assert training.settings == {
        "data": "photos",
        "recipe": "ddpm-64",
        "out": Path("runs/mine"),
        "size": 32,
        "minutes": None,
        "steps": 9,
        "from_model": "runs/old",
        "overrides": ["training.lr=1e-3", "vae.steps=4"],
        "seed": 5,
        "device": "cpu",
        "track": ["tensorboard", "wandb"],
    }
    shown = capsys.readouterr()
    assert shown.out == "runs/mine/report.html\n"
    assert "warning: 2 of 60 pictures could not be read" in shown.err
    assert "calotype sample runs/mine" in shown.err


def test_train_tells_the_latest_of_every_metric(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "photos", "--out", "runs/a b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run": "runs/a b",
        "report": "runs/a b/report.html",
        "model": "runs/a b/model",
        "samples": ["runs/a b/samples/step-10.png"],
        "metrics": {"vae": {"step": 10, "loss": 0.25, "held_out_psnr": 22.0}, "denoiser": {"step": 7, "loss": 0.3}},
    }


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"examples": ["a red heart"]}, "sample runs/mine 'a red heart'"),
        ({"classes": ["big cat"]}, "sample runs/mine --label 'big cat'"),
        ({}, "sample runs/mine -n 16"),
    ],
)
def test_train_ends_with_a_command_that_fits_the_model(
    training: Training, capsys: pytest.CaptureFixture[str], facts: dict[str, list[str]], words: str
) -> None:
    training.facts = facts
    assert run(["train", "photos", "--out", "runs/mine"]) == 0
    assert f"go on:  calotype {words}\n" in capsys.readouterr().err


def test_quickstart_is_ten_minutes_of_openmoji(training: Training) -> None:
    assert run(["quickstart"]) == 0
    assert training.settings == {"data": "openmoji", "out": Path("runs/quickstart"), "minutes": 10.0}
    assert run(["quickstart", "--minutes", "30", "--out", "runs/long"]) == 0
    assert training.settings == {"data": "openmoji", "out": Path("runs/long"), "minutes": 30.0}


def test_sample_hands_on_every_option(model: Model) -> None:
    words = "--negative blur -n 2 --seed 9 --steps 7 --sampler ddim --guidance 1.5 --label sea --label ice --device cpu"
    assert run(["sample", "runs/x", "a cat", "a dog", *words.split()]) == 0
    assert model.requests == [
        {
            "prompts": ["a cat", "a dog"],
            "labels": ["sea", "ice"],
            "negative": "blur",
            "num_images": 2,
            "seed": 9,
            "num_steps": 7,
            "sampler": "ddim",
            "guidance_scale": 1.5,
        }
    ]


def test_sample_without_words_asks_for_nothing(model: Model, here: Path) -> None:
    assert run(["sample", "runs/x"]) == 0
    assert model.requests[0]["prompts"] is None
    assert model.requests[0] == {
        "prompts": None,
        "labels": None,
        "negative": None,
        "num_images": 1,
        "seed": 0,
        "num_steps": None,
        "sampler": None,
        "guidance_scale": None,
    }
    assert [path.name for path in (here / "samples").iterdir()] == ["picture-0.png"]


def test_pictures_carry_their_settings_and_a_grid_joins_them(model: Model, capsys) -> None:
    assert (
        run(["sample", "runs/x", "a red cat!", "flag: Åland", "-n", "2", "--seed", "5", "--steps", "6", "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert [Path(entry["path"]).name for entry in result["pictures"]] == [
        "a-red-cat-5.png",
        "a-red-cat-6.png",
        "flag-åland-7.png",
        "flag-åland-8.png",
    ]
    for entry in result["pictures"]:
        with Image.open(entry["path"]) as picture:
            assert picture.text["prompt"] == entry["prompt"]
            assert picture.getpixel((0, 0)) == (entry["seed"],) * 3
        assert read_settings(Path(entry["path"]))["num_steps"] == 6
    with Image.open(result["grid"]) as grid:
        assert grid.width > 32
        assert grid.height > 32
    assert result["films"] == []


def test_a_second_call_overwrites_nothing(model: Model, here: Path) -> None:
    assert run(["sample", "runs/x", "a cat", "--out", "mine"]) == 0
    (here / "mine" / "a-cat-0.png").write_bytes(b"treasured")
    assert run(["sample", "runs/x", "a cat", "--out", "mine"]) == 0
    assert (here / "mine" / "a-cat-0.png").read_bytes() == b"treasured"
    assert {path.name for path in (here / "mine").iterdir()} == {"a-cat-0.png", "a-cat-0-2.png"}


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "/", ".", "a" * 500, "\0", "", "..\\x", "-rf"])
def test_a_prompt_cannot_leave_the_folder(model: Model, here: Path, prompt: str) -> None:
    assert run(["sample", "runs/x", "--out", "mine", "--", prompt]) == 0
    (only,) = [path for path in here.rglob("*") if path.is_file()]
    assert only.parent == here / "mine"
    assert len(only.name) < 80


@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
def test_a_film_shows_the_way_to_the_last_frame(model: Model, steps: int, capsys) -> None:
    words = ["--steps", str(steps), "-n", "2", "--film", "--json"]
    assert run(["sample", "runs/x", "a cat", *words]) == 0
    films = json.loads(capsys.readouterr().out)["films"]
    assert len(films) == 2
    for film in films:
        with Image.open(film["gif"]) as gif:
            assert gif.n_frames <= 81
            gif.seek(gif.n_frames - 1)
            assert abs(gif.convert("RGB").getpixel((8, 8))[0] - (steps - 1) % 256) <= 2
        with Image.open(film["strip"]) as strip:
            assert strip.width >= 16 * min(steps, 4)


def test_a_film_that_is_refused_is_refused_before_drawing(
    model: Model, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def refuse(**_: object) -> None:
        raise UserError("65 pictures are too many", "ask for 64 or fewer")

    monkeypatch.setattr(model, "stream", refuse)
    assert run(["sample", "runs/x", "a cat", "--film"]) == 2
    assert model.requests == []
    assert list(here.iterdir()) == []


def test_models_are_listed_in_columns(listed: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "calotype quickstart" in shown.err
    listed.append({"name": "emoji", "takes": "prompts", "pixels": 64, "bytes": 7_650_000, "licence": "CC BY-SA 4.0"})
    listed.append({"name": "runs/of a long name", "path": "runs/q/model", "problem": "model.json is\nmissing"})
    assert run(["models"]) == 0
    head, row, broken = capsys.readouterr().out.splitlines()
    assert [head.index(title) for title in ("takes", "pixels", "MB", "licence")] == [
        row.index(value) for value in ("prompts", "64", "7.7", "CC BY-SA 4.0")
    ]
    assert row.split() == ["emoji", "prompts", "64", "7.7", "-", "CC", "BY-SA", "4.0"]
    assert broken == "runs/of a long name  unusable: model.json is missing"
    assert run(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": listed}
