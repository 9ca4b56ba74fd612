"""A bundle: a folder that describes itself. safetensors and JSON only; sampling it needs no flags."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError, nearest
from calotype.core.files import MANIFEST, read_json, verify_folder, write_folder, write_json, write_text
from calotype.core.progress import Silent
from calotype.core.tensors import choose_device, halved, is_half, load_tensors, load_weights, save_tensors
from calotype.latents import Codec, LatentStatistics, build_vae
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.unet import UNet
from calotype.pipeline.card import model_card
from calotype.pipeline.pipeline import Pipeline
from calotype.pipeline.run import Run
from calotype.pipeline.shipped import found
from calotype.pipeline.weights import AVERAGED, denoiser_weights, vae_weights
from calotype.recipes import Recipe, SamplingSection

FORMAT_VERSION = 2  # 1 had other networks
KEYS = ("format_version", "recipe", "process", "image_size", "classes", "latents", "facts")
WRITTEN = ("model.json", "denoiser.safetensors", "vae.safetensors", "README.md", MANIFEST)  # anew at every change


def save_bundle(model: Pipeline, folder: Path, samples: Any = None, *, half: bool = False) -> None:
    """Write `folder` whole: model.json, denoiser.safetensors, vae.safetensors, README.md and samples.png if given.

    `half`: weights as float16, in half the bytes; UserError for those it cannot hold.
    """
    write_folder(folder, lambda aside: _fill(model, aside, samples, half))


def rewrite_bundle(
    folder: Path,
    *,
    sampling: SamplingSection | None = None,
    weights: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, Any] | None = None,
    samples: Any = None,
) -> Pipeline:
    """Give the bundle in `folder` other defaults, denoiser weights or facts, with card and manifest; returns the model.

    `facts` are laid over those there are (None removes one); what is not given stays, and so do other files in the
    folder, and float16. A reader sees the old bundle or the new one. Raises UserError for a bundle that is damaged, or
    for weights that are another network's or that float16 cannot hold.
    """
    half = is_half(folder / "denoiser.safetensors")
    model = load_bundle(folder, torch.device("cpu"))
    if weights is not None:
        load_weights(model.network, dict(weights), folder / "denoiser.safetensors")
    recipe = model.recipe if sampling is None else model.recipe.model_copy(update={"sampling": sampling})
    merged = {name: value for name, value in {**model.facts, **(facts or {})}.items() if value is not None}
    model = replace(model, recipe=recipe, facts=merged)

    def fill(aside: Path) -> None:
        for path in folder.iterdir():
            if path.name not in WRITTEN and not path.name.startswith("."):
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, aside / path.name)
        _fill(model, aside, samples, half)

    write_folder(folder, fill)
    return load_bundle(folder, torch.device("cpu")) if half else model


def _fill(model: Pipeline, aside: Path, samples: Any, half: bool) -> None:
    """The files of a bundle, but for its manifest."""
    for name, module in (("denoiser", model.network), ("vae", model.codec.vae)):
        tensors = module.state_dict()
        save_tensors(aside / f"{name}.safetensors", halved(tensors) if half else tensors)
    description = {
        "format_version": FORMAT_VERSION,
        "recipe": model.recipe.model_dump(mode="json"),
        "process": model.process.config(),
        "image_size": model.size,
        "classes": model.classes,
        "latents": model.codec.statistics.model_dump(),
        "facts": model.facts,
    }
    write_json(aside / "model.json", description)
    write_text(aside / "README.md", model_card(model))
    if samples is not None:
        samples.save(aside / "samples.png")


def load_bundle(folder: Path, device: torch.device, text_encoder: str | None = None) -> Pipeline:
    """Read and verify a bundle. Another format, a missing or unknown key or an altered file is one clear line."""
    if (folder / MANIFEST).exists():
        verify_folder(folder)
    where = folder / "model.json"
    description = _described(where)
    recipe = _encoded_by(Recipe.parse(description["recipe"], f"{where}: recipe"), text_encoder)
    statistics = LatentStatistics.parse(description["latents"], f"{where}: latents")
    try:
        size, classes, facts = int(description["image_size"]), list(description["classes"]), dict(description["facts"])
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f"{where} is not a model's ({error})", "restore it") from None
    vae, network = build_vae(recipe.vae.network), UNet(recipe.network)
    load_weights(vae, load_tensors(folder / "vae.safetensors"), folder / "vae.safetensors")
    load_weights(network, load_tensors(folder / "denoiser.safetensors"), folder / "denoiser.safetensors")
    return assemble(recipe, Codec(vae, statistics, size), network, classes, facts, device)


def _described(where: Path) -> dict[str, Any]:
    """model.json, of this format and with the keys it should have."""
    description = read_json(where)
    version = description.get("format_version") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise CorruptFileError(f"{where} is not a model's: it has no format_version", "restore it")
    if version > FORMAT_VERSION:
        raise UserError(f"{where} has format {version}, this calotype reads {FORMAT_VERSION}", "update calotype")
    if version < FORMAT_VERSION:
        raise UserError(
            f"{where} has format {version}: an older calotype made it, this one reads {FORMAT_VERSION}",
            "train again with the same data and seed",
        )
    for key in description:
        if key not in KEYS:
            raise UserError(f"{where}: unknown key '{key}'", nearest(key, KEYS))
    for key in KEYS:
        if key not in description:
            raise CorruptFileError(f"{where} has no key '{key}'", "restore it")
    return dict(description)


def _encoded_by(recipe: Recipe, text_encoder: str | None) -> Recipe:
    """The recipe with its text encoder where the user has it."""
    return recipe if text_encoder is None else recipe.model_copy(update={"text_encoder": text_encoder})


def assemble(
    recipe: Recipe, codec: Codec, network: UNet, classes: list[str], facts: dict[str, Any], device: torch.device
) -> Pipeline:
    """The parts as one model, on `device`, frozen."""
    network = network.to(device).eval().requires_grad_(False)
    denoiser = NetworkDenoiser(network, recipe.process.build(), recipe.loss.parameterization)
    return Pipeline(recipe, codec.to(device), network, denoiser, classes, facts, device)


def load(
    model: str | Path, device: str = "auto", *, text_encoder: str | None = None, weights: str | float = AVERAGED
) -> Pipeline:
    """A model by run folder, bundle folder or shipped name, looked for in this order. UserError where there is none.

    `text_encoder` says where its text encoder is now, by folder or hub id; it must be the one of the training.
    `weights` of a run: "averaged" as in its bundle, "live", "best" by its scores, or the relative width of an average.
    """
    chosen, place = choose_device(device), found(model)
    if weights != AVERAGED and place.kind != "run":
        raise UserError(f"{model} is not a run's folder: it has averaged weights alone", "leave --weights out")
    if place.kind == "model":
        return load_bundle(place.folder, chosen, text_encoder)
    if (place.folder / "model" / "model.json").is_file() and weights == AVERAGED:
        return load_bundle(place.folder / "model", chosen, text_encoder)
    return model_of_run(Run(place.folder), chosen, text_encoder, weights)


def model_of_run(
    run: Run, device: torch.device, text_encoder: str | None = None, which: str | float = AVERAGED
) -> Pipeline:
    """The model of a run, finished or not, from its checkpoints."""
    from calotype.images.dataset import load_prepared
    from calotype.latents import read_statistics
    from calotype.pipeline.conditions import prepare_conditions

    pictures = load_prepared(run.data)
    statistics = read_statistics(run.latents)
    if pictures is None or statistics is None:
        raise UserError(
            f"{run.folder} has no model yet: its first stage is not done", "give the same train command again"
        )
    asked = _encoded_by(run.recipe, text_encoder)
    weights = vae_weights(run.vae), denoiser_weights(run.denoiser, which)  # before captions are touched
    conditions = prepare_conditions(run, asked, pictures, Silent())
    recipe = conditions.fill(asked)
    vae, network = build_vae(recipe.vae.network), UNet(recipe.network)
    load_weights(vae, weights[0], run.vae)
    load_weights(network, weights[1], run.denoiser)
    return assemble(recipe, Codec(vae, statistics, recipe.size), network, conditions.classes, conditions.facts, device)
