"""`calotype export` and `calotype import`: models on their way to other libraries, and from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli import options, output


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a bundle folder or a name from 'models'.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="diffusers or onnx.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    text_encoder: Annotated[
        str | None,
        typer.Option("--text-encoder", metavar="FOLDER_OR_ID", help="Where the model's text encoder is now."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a model for stock diffusers or for ONNX Runtime.

    What is written is compared with the model itself, down to a whole picture.
    """
    options.checked_folder(out)
    import calotype
    from calotype.pipeline.export import check_export, export

    check_export(to, out)  # before anything is loaded
    output.say(f"exporting {model} to {to}: this takes from seconds to a few minutes")
    facts = export(calotype.load(model, device="cpu", text_encoder=text_encoder), to, out)
    output.say(_told(facts["parity"]))
    output.say(f"how to use it: {out / 'README.md'}")
    output.result({"model": model, **facts}, [str(out / name) for name in facts["files"]], as_json=as_json)


def import_model(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A diffusers folder: unet, vae and scheduler.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The bundle to make.")],
    as_json: options.Json = False,
) -> None:
    """Make an unconditional latent diffusion model of diffusers a model of calotype."""
    options.checked_folder(out)
    from calotype.pipeline.importing import import_diffusers

    output.say(f"importing {folder}")
    model = import_diffusers(folder, out)
    output.say(f"go on:  calotype sample {out} -n 4")
    values = {"folder": str(folder), "model": str(out), "size": model.size, "sampler": model.recipe.sampling.sampler}
    output.result(values, [str(out)], as_json=as_json)


def _told(parity: dict[str, Any]) -> str:
    mean, most = parity["picture_mean_of_255"], parity["picture_max_of_255"]
    return f"its picture differs from calotype's by {mean:.2g} of 255 on average, {most:.2g} at most"
