"""An autoencoder by itself, to start a first stage from: a folder that describes itself, or the VAE of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calotype.core.errors import CorruptFileError, UserError, nearest
from calotype.core.files import MANIFEST, read_json, verify_folder, write_folder, write_json, write_text
from calotype.core.progress import Silent
from calotype.core.tensors import choose_device, halved, load_tensors, load_weights, save_tensors
from calotype.latents import ConvVAE, FirstStage, VAEConfig, build_vae
from calotype.network.unet import count_parameters
from calotype.pipeline import shipped
from calotype.pipeline.bundle import load_bundle
from calotype.pipeline.card import MEASURES
from calotype.pipeline.run import Run
from calotype.training.checkpoint import newest_checkpoint, read_checkpoint
from calotype.training.journal import Journal

FORMAT_VERSION = 1
DESCRIPTION = "autoencoder.json"
WEIGHTS = "vae.safetensors"
_KEYS = {"format_version", "network", "facts"}


def save_autoencoder(
    vae: ConvVAE, facts: dict[str, Any], folder: Path, *, half: bool = False, samples: Any = None
) -> None:
    """Write `folder` whole: autoencoder.json, vae.safetensors, README.md, and samples.png if given.

    `facts`: name, data (source, licence, attribution), versions, measured. `half`: weights as float16, in half the
    bytes; UserError for those that it cannot hold.
    """

    def fill(aside: Path) -> None:
        weights = vae.state_dict()
        save_tensors(aside / WEIGHTS, halved(weights) if half else weights)
        network = vae.config.model_dump(mode="json")
        write_json(aside / DESCRIPTION, {"format_version": FORMAT_VERSION, "network": network, "facts": facts})
        write_text(aside / "README.md", autoencoder_card(vae, facts, pictured=samples is not None))
        if samples is not None:
            samples.save(aside / "samples.png")

    write_folder(folder, fill)


def load_autoencoder(name: str | Path) -> tuple[ConvVAE, dict[str, Any]]:
    """The autoencoder `name`, float32 on the CPU, and its facts: a shipped one, the folder of one, or a model's.

    A model is a shipped one, a bundle, or a run whose first stage is done. Raises UserError where there is none, or
    none that can be trained on.
    """
    place = shipped.locate(name)
    if place is None:
        known = shipped.shipped_names()
        mend = nearest(str(name), known) if known else "give the folder of a run, of a model or of an autoencoder"
        raise UserError(f"no autoencoder '{name}'", mend)
    vae: FirstStage
    if place.kind == "autoencoder":
        vae, facts = _read(place.folder)
    elif place.kind == "run" and not (place.folder / "model" / "model.json").is_file():
        vae, facts = _of_run(Run(place.folder))
    else:
        bundle = place.folder / "model" if place.kind == "run" else place.folder
        model = load_bundle(bundle, choose_device("cpu"))
        vae, facts = model.codec.vae, model.facts
    if not isinstance(vae, ConvVAE):
        raise UserError(f"{name} has a VAE that diffusers trained", "name that one with --set vae.pretrained=...")
    return vae.requires_grad_(True), facts


def _read(folder: Path) -> tuple[ConvVAE, dict[str, Any]]:
    if (folder / MANIFEST).exists():
        verify_folder(folder)
    where = folder / DESCRIPTION
    description = read_json(where)
    if not isinstance(description, dict) or description.get("format_version") != FORMAT_VERSION:
        version = description.get("format_version") if isinstance(description, dict) else None
        raise UserError(
            f"{where} has format {version}, this calotype reads {FORMAT_VERSION}", "use the calotype that wrote it"
        )
    if description.keys() != _KEYS or not all(isinstance(description[key], dict) for key in ("network", "facts")):
        raise CorruptFileError(f"{where} is not an autoencoder's", "restore it")
    vae = ConvVAE(VAEConfig.parse(description["network"], f"{where}: network"))
    load_weights(vae, load_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return vae, description["facts"]


def _of_run(run: Run) -> tuple[FirstStage, dict[str, Any]]:
    """Of a run that has no model yet, but a first stage that is done."""
    segments, newest = Journal(run.journal).segments("vae"), newest_checkpoint(run.vae, Silent())
    if not segments or newest is None or newest.name != f"step-{segments[-1].end or 0:08d}":
        raise UserError(f"the first stage of {run.folder} is not done", "give its train command again, or wait for it")
    vae = build_vae(run.recipe.vae.network)
    load_weights(vae, read_checkpoint(newest).tensors["ema"], run.vae)
    return vae, {"name": run.folder.name}


def autoencoder_card(vae: ConvVAE, facts: dict[str, Any], *, pictured: bool) -> str:
    """Markdown: what it is, how to start from it, whose pictures it has seen, what it was measured at."""
    name, config, data = facts.get("name", "an autoencoder"), vae.config, facts.get("data", {})
    size = f"{config.latent_channels} channels at 1/{config.downsampling} of their sides"
    lines = [
        f"# {name}",
        "",
        f"An autoencoder of {count_parameters(vae):,} parameters: pictures to latents of {size}, and back.",
        "It draws nothing by itself: a latent diffusion model's first stage starts from it.",
        *(["", "![originals above what comes back](samples.png)"] if pictured else []),
        *("", "## Start from it", "", f"    calotype train YOUR_FOLDER --set vae.from={name}", ""),
        "It is used as it is where it serves your pictures, and learns them too where it does not.",
        *("", "## Data", ""),
        *(f"- {key}: {data.get(key) or 'not stated'}" for key in ("source", "licence", "attribution")),
    ]
    if rows := _measured(facts):
        lines += ["", "## Measured", "", "| measure | value |", "| --- | --- |", *rows]
    for heading in ("training", "limits"):
        if words := facts.get(heading):
            lines += ["", f"## {heading.capitalize()}", "", str(words)]
    if versions := facts.get("versions"):
        lines += ["", f"Made with {', '.join(f'{what} {version}' for what, version in versions.items())}."]
    return "\n".join([*lines, ""])


def _measured(facts: dict[str, Any]) -> list[str]:
    """A row of a table for each measure."""
    found = facts.get("measured", {}).items()
    return [f"| {MEASURES.get(name, name.replace('_', ' '))} | {told:.4g} |" for name, told in found]
