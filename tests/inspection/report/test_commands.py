"""Commands that a reader may copy: they say what was done, and they can be given."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from calotype.inspection.report import commands, facts
from calotype.recipes import get_recipe
from tests.inspection.report.fake_run import FakeModel, make_pictures


def test_the_run_is_named_as_the_reader_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert facts.run_name(tmp_path / "runs" / "a b") == "runs/a b"
    model, pictures = FakeModel(captioned=True), make_pictures(tmp_path / "runs" / "a b", ["an owl's nest"] * 4)
    found = dict(commands.next_commands(tmp_path / "runs" / "a b", model, pictures, "an owl's nest", 40.0))
    assert found["More pictures"].startswith("""calotype sample 'runs/a b' 'an owl'"'"'s nest' """)
    again = "calotype train sketches --out 'runs/a b' --size 16 --minutes 60"
    assert found["Train on, with the same settings"] == again
    assert 'sample(["an owl\'s nest"], ' in found["In Python"]
    python = re.sub(r"calotype\.load\(.*\)", "None", found["In Python"])
    compile(python, "report", "exec")


@pytest.mark.parametrize("name", ["calotype", "ddpm-64"])
def test_the_command_that_makes_it_again_has_every_setting(tmp_path: Path, name: str) -> None:
    """Given again, it comes to the very recipe."""
    changed = ["seed=7", "sampling.guidance_interval=[0.1, 0.9]", "training.batch_size=96", "data.duplicates=drop-near"]
    recipe = get_recipe(name, 64).with_overrides([*changed, "vae.loss.augment.flip=false"])
    config = {"data": "my pictures/", "from": None, "recipe": recipe.model_dump(mode="json")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = shlex.split(commands.command_again(tmp_path, {"denoiser_steps": 900, "vae_steps": 300}))
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["calotype", "train", "my pictures/"]
    assert (options["--recipe"], options["--size"], options["--seed"], options["--steps"]) == (name, "64", "7", "900")
    sets = [value for option, value in pairwise(words) if option == "--set"]
    assert len(sets) == 5
    again = get_recipe(name, 64).with_overrides(["seed=7", *sets])
    assert again == recipe.with_overrides(["vae.steps=300"])


def test_a_run_that_went_on_from_a_model_says_from_which(tmp_path: Path) -> None:
    recipe = get_recipe("calotype", 64).with_overrides(["vae.network.latent_channels=7"])
    config = {"data": "x", "from": "runs/old", "recipe": recipe.model_dump(mode="json")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = commands.command_again(tmp_path, {})
    assert "--from runs/old" in command
    assert "latent_channels" not in command  # they are the model's


@pytest.mark.parametrize("steps", [0, 300])
def test_a_run_that_took_an_autoencoder_says_which(tmp_path: Path, steps: int) -> None:
    """Also one that comes with the package, so that its steps are not taken for a wish to begin from nothing."""
    recipe = get_recipe("calotype", 64).with_overrides(["vae.from=photos-128", "vae.network.channels=[8, 16]"])
    config = {"data": "x", "from": None, "recipe": recipe.model_dump(mode="json")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = shlex.split(commands.command_again(tmp_path, {"vae_steps": steps}))
    sets = [value for option, value in pairwise(words) if option == "--set"]
    assert sets == ['vae.from="photos-128"', *([f"vae.steps={steps}"] if steps else [])]
    assert get_recipe("calotype", 64).with_overrides(sets).vae.taken == "photos-128"


@pytest.mark.parametrize("text", ["", "recipe: {name: none, size: 64}\ndata: x", "recipe: {name: calotype}\ndata: x"])
def test_a_config_that_says_nothing_gives_no_command(tmp_path: Path, text: str) -> None:
    assert commands.command_again(tmp_path, {}) == ""
    (tmp_path / "config.yaml").write_text(text)
    assert commands.command_again(tmp_path, {}) == ""
