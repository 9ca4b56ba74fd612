"""The commands that make a run again, and those that go on from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.core.errors import UserError
from calotype.inspection.report.facts import find, read_config, run_name
from calotype.recipes import get_recipe

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet
    from calotype.inspection.report.drawing import Model


def command_again(run: Path, facts: Mapping[str, Any], out: str = "runs/again") -> str:
    """The command that trains the same model from nothing: the same settings, and the steps that were taken.

    Empty for a run whose config names no recipe that there is.
    """
    config = read_config(run)
    recipe, data = config.get("recipe"), config.get("data")
    if not isinstance(recipe, dict) or not data:
        return ""
    try:
        usual = get_recipe(str(recipe.get("name")), int(recipe.get("size", 0))).model_dump(mode="json")
    except (UserError, ValueError):
        return ""
    words = ["calotype", "train", str(data), "--out", out, "--recipe", recipe["name"], "--size", str(recipe["size"])]
    words += ["--seed", str(recipe.get("seed", 0))]
    words += ["--from", str(config["from"])] if config.get("from") else []
    words += ["--steps", str(facts["denoiser_steps"])] if facts.get("denoiser_steps") else []
    changed = _changed(usual, recipe)
    if facts.get("vae_steps"):
        changed["vae.steps"] = facts["vae_steps"]
    section = recipe.get("vae") or {}
    elsewhere = config.get("from") or section.get("pretrained") or section.get("from", "scratch") != "scratch"
    for path, value in changed.items():
        if path != "seed" and not (elsewhere and path.startswith("vae.network")):
            words += ["--set", f"{path}={json.dumps(value)}"]
    return shlex.join(words)


def _changed(usual: Any, values: Any, path: str = "") -> dict[str, Any]:
    """Settings that are not the recipe's own, by dotted name."""
    if isinstance(usual, Mapping) and isinstance(values, Mapping):
        found: dict[str, Any] = {}
        for key in values:
            found |= _changed(usual.get(key), values[key], f"{path}.{key}" if path else str(key))
        return found
    return {} if usual == values else {path: values}


def next_commands(
    run: Path, model: Model, pictures: PictureSet, word: str, minutes_spent: float
) -> list[tuple[str, str]]:
    """(what it does, the command) for the ways on from this run; `word` is a prompt or class it knows."""
    name = shlex.quote(run_name(run))
    option, argument = (" ", "") if model.captioned else (" --label ", "labels=") if model.classes else ("", "")
    asked = f"{option}{shlex.quote(word)}" if option else ""
    call = f"{argument}[{json.dumps(word, ensure_ascii=False)}], " if option else ""
    return [
        ("More pictures", f"calotype sample {name}{asked} -n 16 --out pictures/"),
        ("How a picture comes about, as a film", f"calotype sample {name}{asked} --film --out pictures/"),
        ("Train on, with the same settings", f"{_train_again(run, pictures)} --minutes {_longer(minutes_spent)}"),
        ("Start from this model with your own pictures", f"calotype train my-pictures/ --from {name} --out runs/mine"),
        (
            "In Python",
            f"import calotype\n\nmodel = calotype.load({json.dumps(run_name(run), ensure_ascii=False)})\n"
            f'pictures = model.sample({call}num_images=4, seed=7)\npictures[0].save("picture.png")',
        ),
    ]


def _train_again(run: Path, pictures: PictureSet) -> str:
    """The command that this run was started with, as far as its config tells; other settings of it are refused."""
    config = read_config(run)
    recipe, seed, data = find(config.get("recipe"), "name"), find(config, "seed"), config.get("data")
    words = ["calotype", "train", str(data or pictures.source), "--out", run_name(run)]
    words += ["--recipe", recipe] if isinstance(recipe, str) and recipe != "calotype" else []
    words += ["--size", str(pictures.pixels.shape[-1])] if pictures.source != "openmoji" else []
    words += ["--seed", str(seed)] if seed else []
    return shlex.join(words)


def _longer(minutes_spent: float) -> int:
    """A round number of minutes, well above what was spent."""
    return next((m for m in (30, 60, 120, 240, 480) if m >= 1.5 * minutes_spent), 100 * (int(minutes_spent / 50) + 1))
