"""A finished and evaluated run as a model that the package carries: float16, with its card and a sheet of samples.

    python runs/pack.py RUN NAME [--scores FILE] [--out src/calotype/models]

runs/NAME.md says what no run knows: whose pictures these were, what their licence means, on what machine it was trained
and where it fails. FILE is a record of `calotype evaluate RUN --data DATA --out FILE`, where the scores to tell are not
those on the run's own pictures. The card's scores are printed.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.core.files import read_json
from calotype.core.tensors import halved
from calotype.images.grid import plot_images
from calotype.images.pixels import to_uint8
from calotype.inspection.scores.subject import denoiser_digest
from calotype.pipeline import Pipeline, Run, load
from calotype.pipeline.bundle import save_bundle
from calotype.pipeline.weights import spent_on

HERE = Path(__file__).parent
MODELS = HERE.parent / "src" / "calotype" / "models"
MOST_BYTES = 40_000_000  # of everything that the package carries
SEEDS = 16
LEVELS_ON_AVERAGE = 1.0  # of 255, by which float16 may change a picture


class Head(Config):
    """The first lines of runs/NAME.md, between two lines of three dashes.

    `examples` are prompts to try, `sheet` those of samples.png: else the examples, or the classes where it has some.
    """

    source: str
    licence: str
    attribution: str
    machine: str
    examples: tuple[str, ...] = ()
    sheet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notes:
    """What a person wrote: the head, and sections of the card by title."""

    head: Head
    sections: dict[str, str]


def read_notes(path: Path) -> Notes:
    """Raises UserError for a file that is missing or not as it should be."""
    try:
        _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
        values = yaml.safe_load(head)
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "write it as the others beside it") from None
    except (ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path} has no head of YAML between two lines of --- ({told})") from None
    sections = {}
    for section in f"\n{body}".split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        sections[title.strip()] = text.strip()
    return Notes(Head.parse(values or {}, str(path)), sections)


def pack_model(run: Run, name: str, notes: Notes, scores: Path | None, out: Path) -> str:
    """Write out/NAME; returns the scores, as its card tells them."""
    if not (run.model / "model.json").is_file():
        raise UserError(f"{run.folder} is not a finished run", "give its train command again")
    full = load(run.model, "cpu")
    facts = full.facts | {
        "name": name,
        "shipped": name,
        "data": full.facts["data"] | notes.head.model_dump(include={"source", "licence", "attribution"}),
        "notes": notes.sections,
        "scores": _scores(run, full, scores) | {"data": notes.head.source},
        "trained": _trained(run, full, name, notes),
    }
    facts |= {"examples": list(notes.head.examples)} if notes.head.examples else {}
    half = replace(_rounded(full), facts=facts)
    requests = _requests(half, notes.head.sheet)
    facts["half"] = _compared(*(torch.cat([one.sample_tensor(**ask) for ask in requests]) for one in (full, half)))
    facts["sheet"] = f"Nothing was chosen: a row for each {_asked(requests)}, from seeds 0 to {SEEDS - 1}."
    save_bundle(half, out / name, _sheet(half, requests), half=True)
    card = (out / name / "README.md").read_text(encoding="utf-8")
    return "## Scores" + card.split("\n## Scores")[1].split("\n## ")[0].rstrip()


def _scores(run: Run, model: Pipeline, file: Path | None) -> dict[str, Any]:
    """The record of an evaluation of this very model, drawing as it does by itself."""
    command = f"calotype evaluate {run.folder} --prompts 192 -n 4"
    record = model.facts.get("scores") if file is None else read_json(file)
    if not record:
        raise UserError(f"{run.folder} was not evaluated", command)
    digest, drawn = denoiser_digest(run.model), model.recipe.sampling.model_dump(mode="json")
    stale = file is not None and file.stat().st_mtime < (run.model / "manifest.json").stat().st_mtime
    if stale or record["model"] not in (None, digest) or record["made"]["sampling"] != drawn:
        raise UserError(f"the scores of {run.folder} are of other weights or settings than it has now", command)
    return dict(record)


def _trained(run: Run, model: Pipeline, name: str, notes: Notes) -> dict[str, Any]:
    facts, recipe = model.facts, model.recipe
    return {
        "machine": notes.head.machine,
        "script": f"runs/{name}.sh",
        "vae_seconds": round(spent_on(run.vae)),
        "denoiser_seconds": round(spent_on(run.denoiser)),
        "vae_samples": int(facts["vae_steps"] or 0) * recipe.vae.training.batch_size,
        "denoiser_samples": int(facts["denoiser_steps"]) * recipe.training.batch_size,
    }


def _rounded(model: Pipeline) -> Pipeline:
    """The model as it is once its weights were float16."""
    other = copy.deepcopy(model)
    for module in (other.network, other.codec.vae):
        module.load_state_dict(halved(module.state_dict()))
    return other


def _compared(full: Tensor, half: Tensor) -> dict[str, Any]:
    """By how many of 255 levels pictures of both differ; UserError where one would see it."""
    difference = (to_uint8(full).int() - to_uint8(half).int()).abs()
    found = {
        "pictures": len(full),
        "mean": round(float(difference.double().mean()), 4),
        "largest": int(difference.max()),
    }
    if not found["mean"] <= LEVELS_ON_AVERAGE:
        raise UserError(f"float16 changes its pictures by {found['mean']} of 255 levels", "do not pack it so")
    return found


def _requests(model: Pipeline, prompts: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each row of the sheet asks for."""
    if prompts or (model.captioned and not model.classes):
        return [{"prompts": prompt} for prompt in prompts or model.examples]
    return [{"labels": label} for label in model.classes] or [{}]


def _asked(requests: list[dict[str, Any]]) -> str:
    return {"prompts": "prompt", "labels": "class"}.get(next(iter(requests[0]), ""), "picture")


def _sheet(model: Pipeline, requests: list[dict[str, Any]]) -> Image.Image:
    """The same seeds for each request, whatever comes of them; its words under the first picture."""
    drawn = [model.sample_tensor(**ask, num_images=SEEDS, seed=0) for ask in requests]
    words = [next(iter(ask.values()), "") if seed == 0 else None for ask in requests for seed in range(SEEDS)]
    columns = SEEDS if model.size <= 64 else SEEDS // 2
    return plot_images(torch.cat(drawn), columns=columns, captions=words if any(words) else None)


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--notes", type=Path, help="default: runs/NAME.md")
    parser.add_argument("--out", type=Path, default=MODELS)
    given = parser.parse_args(arguments)
    try:
        run, notes = Run(given.run), read_notes(given.notes or HERE / f"{given.name}.md")
        print(pack_model(run, given.name, notes, given.scores, given.out))
        one, everything = size_of(given.out / given.name), size_of(given.out)
        print(f"{given.out / given.name}: {one / 1e6:.1f} MB; all models: {everything / 1e6:.1f} MB", file=sys.stderr)
        if everything > MOST_BYTES:
            raise UserError(f"{given.out} has more than {MOST_BYTES / 1e6:.0f} MB", "the package must stay small")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
