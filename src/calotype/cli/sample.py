"""`calotype sample`: new pictures from a model, each a PNG that carries its prompt, seed and settings."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import options, output
from calotype.core.errors import UserError
from calotype.core.lazy import without_pauses

if TYPE_CHECKING:
    from PIL.Image import Image

    from calotype.pipeline import Frame
    from calotype.recipes import SamplingSection

_FILM_FRAMES = 40
_STRIP_FRAMES = 8


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a bundle folder or a name from 'models'.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw, each in quotes.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="C", help="A class, with or without a prompt; may be repeated."),
    ] = None,
    negative: Annotated[str | None, typer.Option("--negative", metavar="P", help="What to steer away from.")] = None,
    num_images: Annotated[int, typer.Option("-n", "--num-images", min=1, help="Pictures of each prompt.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the first picture.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the sampler.")] = None,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", help="ddpm, ddim, alpha, euler, heun, dpm++2m or dpm++2m-sde."),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="How closely to follow the words (3); 1 turns it off.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting of sampling, as threshold=dynamic."),
    ] = None,
    weak: Annotated[
        str | None,
        typer.Option(
            "--weak", metavar="MODEL", help="An earlier or smaller model of the same VAE to be led away from."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option("--text-encoder", metavar="FOLDER_OR_ID", help="Where the model's text encoder is now."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the pictures.")] = Path("samples"),
    weights: Annotated[
        str, typer.Option("--weights", help="Of a run: averaged, live, best, or an average's relative width, as 0.08.")
    ] = "averaged",
    device: options.Device = "auto",
    film: Annotated[bool, typer.Option("--film", help="Also a GIF and a strip of each picture's making.")] = False,
    as_json: options.Json = False,
) -> None:
    """Draw pictures.

    The same seed and settings draw the same picture, alone or among others.
    What is not given is the model's own choice.
    """
    if guidance is not None and not math.isfinite(guidance):
        raise UserError(f"--guidance {guidance} is not a number", "3 is a good one; 1 turns guidance off")
    options.checked_folder(out)
    with without_pauses():
        _begin_reading(model, text_encoder, bool(prompts))
        import calotype

        pipeline = calotype.load(model, device=device, text_encoder=text_encoder, weights=weights)
    request: dict[str, Any] = {
        "prompts": prompts or None,
        "labels": labels or None,
        "negative": negative,
        "num_images": num_images,
        "seed": seed,
        "num_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
    }
    if overrides:
        request["settings"] = _changed(pipeline.recipe.sampling, overrides)
    weaker: dict[str, Any] = (
        {} if weak is None else {"weak": calotype.load(weak, device=device, text_encoder=text_encoder)}
    )
    frames = pipeline.stream(**request, **weaker) if film else None  # what it refuses, it refuses before any drawing
    started = time.monotonic()
    pictures = pipeline.sample(**request, **weaker)
    seconds = time.monotonic() - started
    saved = _save_pictures(pictures, out)
    grid = _save_grid(pictures, out, request) if len(pictures) > 1 else None
    films = [] if frames is None else _save_films(_thinned(frames), saved, out)
    output.say(f"{len(pictures)} {'picture' if len(pictures) == 1 else 'pictures'} in {seconds:.1f} s")
    values = {"model": model, "pictures": saved, "grid": grid, "films": films, "seconds": round(seconds, 3)}
    paths = [entry["path"] for entry in saved] + [grid] * (grid is not None)
    paths += [path for entry in films for path in entry.values()]
    output.result(values, paths, as_json=as_json)


def _begin_reading(model: str, text_encoder: str | None, prompted: bool) -> None:
    """Tell a misspelt model before torch is imported, which takes longest, and ready the text encoder while it is."""
    from calotype.pipeline.shipped import found

    place = found(model)
    if prompted:
        from calotype.text import begin_loading

        begin_loading(text_encoder or place.text_encoder or "")


def _changed(section: SamplingSection, assignments: list[str]) -> dict[str, Any]:
    """The settings that --set gives another value, checked."""
    own, asked = section.model_dump(), section.with_overrides(assignments).model_dump()
    return {key: value for key, value in asked.items() if value != own[key]}


def _save_pictures(pictures: list[Image], out: Path) -> list[dict[str, Any]]:
    """Each picture as a PNG named after its words and seed; never over an existing file."""
    from calotype.images.grid import save_png

    saved = []
    for picture in pictures:
        settings = dict(picture.info.get("calotype", {}))
        path = _claim(out, f"{_slug(_words(settings))}-{settings.get('seed', 0)}", [".png"])[0]
        save_png(picture, path, settings)
        saved.append({"path": str(path), **settings})
    return saved


def _words(settings: dict[str, Any]) -> str:
    """What a picture was asked to be."""
    asked = [str(settings[key]) for key in ("label", "prompt") if settings.get(key)]
    return ": ".join(asked) or "picture"


def _save_grid(pictures: list[Image], out: Path, request: dict[str, Any]) -> str:
    """All pictures on one sheet: a row for each prompt when there are several, under their words."""
    from calotype.images.grid import plot_images, save_png

    per_prompt = request["num_images"]
    columns = per_prompt if 1 < per_prompt < len(pictures) else None
    asked = request["prompts"] or request["labels"]
    captions = [_words(picture.info.get("calotype", {})) for picture in pictures] if asked else None
    path = _claim(out, "grid", [".png"])[0]
    save_png(plot_images(pictures, columns=columns, captions=captions), path, request)
    return str(path)


def _thinned(frames: Iterator[Frame]) -> list[Frame]:
    """At most twice `_FILM_FRAMES` of them, evenly spaced, and the last."""
    kept: list[Frame] = []
    every, last = 1, None
    for count, frame in enumerate(frames):
        last = frame
        if count % every == 0:
            kept.append(frame)
        if len(kept) == 2 * _FILM_FRAMES:
            kept, every = kept[::2], 2 * every
    return kept if last is None or kept[-1] is last else [*kept, last]


def _save_films(frames: list[Frame], saved: list[dict[str, Any]], out: Path) -> list[dict[str, str]]:
    """A GIF and a strip of each picture on its way from noise."""
    from calotype.images.grid import film_strip, save_gif, save_png

    shown = [frame.images() for frame in frames]
    films = []
    for place, entry in enumerate(saved):
        pictures = [images[place] for images in shown]
        gif, strip = _claim(out, Path(entry["path"]).stem, [".gif", "-strip.png"])
        save_gif(pictures, gif)
        stride = -(-len(pictures) // _STRIP_FRAMES)
        save_png(film_strip(pictures[::-1][::stride][::-1]), strip, None)
        films.append({"gif": str(gif), "strip": str(strip)})
    return films


def _slug(words: str) -> str:
    """Words as part of a file name: letters of any script, digits and dashes, at most 60."""
    return re.sub(r"[^\w]+", "-", words.lower()).strip("-_")[:60].strip("-") or "picture"


def _claim(out: Path, base: str, endings: list[str]) -> list[Path]:
    """Paths out/base+ending, counted up until none of them exists."""
    name, count = base, 1
    while any((out / f"{name}{ending}").exists() for ending in endings):
        count += 1
        name = f"{base}-{count}"
    return [out / f"{name}{ending}" for ending in endings]
