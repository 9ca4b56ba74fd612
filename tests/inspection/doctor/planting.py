"""Small data sets, and faults to plant in a run or a set: each with the name that the doctor should give it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from calotype.core.files import append_line, write_folder, write_json
from calotype.pipeline import Run
from calotype.recipes import Recipe

SIZE, COUNT = 32, 200
COLOURS = {"red": (210, 50, 40), "green": (40, 160, 70), "blue": (50, 80, 210), "yellow": (220, 190, 60)}
QUICK = ["vae.steps=140", "vae.training.batch_size=8", "training.batch_size=16", "training.log_every=5"]
QUICK += ["vae.training.log_every=5", "training.validate_every=40", "training.optimizer.warmup=10"]
QUICK += ["network.channels=[16, 32]", "network.emb_channels=32", "network.condition_channels=32"]
QUICK += ["sampling.num_steps=6", "vae.network.channels=[32, 48]", "training.post_hoc=null", "training.keep=2"]


def drawing(draw: np.random.Generator, colour: str, kind: str) -> Image.Image:
    """A disc or square somewhere on a light ground."""
    y, x = np.mgrid[:SIZE, :SIZE]
    (cx, cy), r = draw.uniform(10, 22, 2), draw.uniform(5, 10)
    apart = np.hypot(x - cx, y - cy) if kind == "disc" else np.maximum(abs(x - cx), abs(y - cy))
    inside = np.clip(r - apart + 0.5, 0, 1)[..., None]
    pixels = (1 - inside) * draw.uniform(150, 255) + inside * np.array(COLOURS[colour])
    return Image.fromarray(pixels.astype(np.uint8))


def paint(
    folder: Path, count: int = COUNT, *, captions: Callable[[int, str], str | None] = lambda k, text: text
) -> Path:
    """Discs and squares of four colours, no two alike, with captions as `captions` has them."""
    draw, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for k in range(count):
        colour, kind = str(draw.choice(list(COLOURS))), str(draw.choice(["disc", "square"]))
        drawing(draw, colour, kind).save(folder / f"{k:03}.png")
        rows.append({"file_name": f"{k:03}.png", "text": captions(k, f"a {colour} {kind}")})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["text"] is not None))
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    write_json(path, values)


def edit_folder(folder: Path, change: Callable[[Path], None]) -> None:
    """Change a folder that has a manifest, which is made anew."""

    def fill(aside: Path) -> None:
        for path in folder.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, aside / path.name)
        change(aside)

    write_folder(folder, fill)


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path)
    with torch.no_grad():
        change(tensors)
    save_file(tensors, path)


def edit_records(run: Run, change: Callable[[list[dict[str, Any]]], None]) -> None:
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    change(records)
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))


def edit_config(run: Run, **settings: Any) -> None:
    """Change settings of the recipe, named with __ for dots, in config.yaml and in the bundle alike."""

    def change(recipe: dict[str, Any]) -> None:
        for name, value in settings.items():
            here = recipe
            *path, last = name.split("__")
            for key in path:
                here = here[key]
            here[last] = value

    values = yaml.safe_load(run.config.read_text())
    change(values["recipe"])
    run.config.write_text(yaml.safe_dump(values, sort_keys=False))

    def change_both(description: dict[str, Any]) -> None:
        change(description["recipe"])
        description["process"] = Recipe.parse(description["recipe"]).process.build().config()

    edit_bundle(run, change_both)


def edit_bundle(run: Run, change: Callable[[dict[str, Any]], None]) -> None:
    edit_folder(run.model, lambda folder: edit_json(folder / "model.json", change))


def edit_weights(run: Run, change: Callable[[dict[str, Tensor]], None], *, live: bool = True) -> None:
    """Change the averaged weights of the denoiser, in the newest checkpoint and in the bundle, and the live ones."""
    for name in ("ema", "network") if live else ("ema",):
        edit_folder(
            newest(run.denoiser), lambda folder, name=name: edit_tensors(folder / f"{name}.safetensors", change)
        )
    edit_folder(run.model, lambda folder: edit_tensors(folder / "denoiser.safetensors", change))


def edit_vae(run: Run, change: Callable[[dict[str, Tensor]], None]) -> None:
    edit_folder(run.model, lambda folder: edit_tensors(folder / "vae.safetensors", change))


def newest(stage: Path) -> Path:
    return max(stage.glob("step-*"))


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def untrained(run: Run) -> dict[str, Tensor]:
    """The denoiser's weights before the first step."""
    recipe = run.load("cpu").recipe
    from calotype.network.unet import UNet

    torch.manual_seed(recipe.seed + 1)
    return UNet(recipe.network).state_dict()


def mix(run: Run, share: float, *, live: bool = False) -> None:
    """Let the averaged weights be a share of what they were before the first step."""
    begun = untrained(run)

    def change(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and "text_" not in name:
                tensors[name] = torch.lerp(tensor, begun[name], share)

    edit_weights(run, change, live=live)


def multiply(tensors: dict[str, Tensor], ending: str, factor: float) -> None:
    named = [name for name in tensors if name.endswith(ending)]
    assert named, f"no {ending} among {sorted(tensors)}"
    for name in named:
        tensors[name] *= factor


def _stopped(run: Run) -> None:
    """As a run is whose process was killed before its end."""
    shutil.rmtree(run.model)
    shutil.rmtree(newest(run.denoiser))


def _spiked(records: list[dict[str, Any]]) -> None:
    row = [r for r in records if r["stage"] == "denoiser" and "loss_by_noise" in r][15]
    row["loss"] *= 3
    row["loss_by_noise"] = [value and value * (20 if k == 5 else 1.1) for k, value in enumerate(row["loss_by_noise"])]


def _slowed(records: list[dict[str, Any]]) -> None:
    for row in records:
        row["lr"] = row.get("lr", 0) * 1e-2


def _too_fast(run: Run) -> None:
    """The rates of a run whose weights could never settle."""

    def change(records: list[dict[str, Any]]) -> None:
        for row in records:
            row["lr"] = row.get("lr", 0) * 25

    edit_records(run, change)


def _overfitted(records: list[dict[str, Any]]) -> None:
    rows = [r for r in records if "held_out_error" in r]
    for k, row in enumerate(rows):
        row |= {"held_out_error": 0.3 + 0.1 * k, "train_error": 0.2 / (k + 1)}


def _tinted(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.8.bias"][:16] += 0.4  # a third of what becomes pixels, in squares of four by four


def _lopsided(tensors: dict[str, Tensor]) -> None:
    tensors["conv_out.bias"] += torch.tensor([1.0, -1.0, 1.0, -1.0])


def _deaf(tensors: dict[str, Tensor]) -> None:
    multiply(tensors, "condition.text.weight", 0)
    multiply(tensors, "map.layout.weight", 0)


def _constant_scale(run: Run) -> None:
    def change(description: dict[str, Any]) -> None:
        description["latents"] |= {"mean": [0.0] * 4, "std": [1 / 0.18215] * 4}

    edit_bundle(run, change)


def _unused_channel(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.0.weight"][:, 2] = 0


def _decoder_undone(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.8.weight"] = tensors["decoder.8.weight"].flip(1)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damage_shard(run: Run) -> None:
    flip_byte(next((run.latents).glob("*/*.safetensors")))


def _lose_bundle(run: Run) -> None:
    shutil.rmtree(run.model)


# What is planted in a run -> (how, the name it should be given, and what else may rightly be said of it).
IN_RUNS: dict[str, tuple[Callable[[Run], None], str, set[str]]] = {
    "a flipped bit in a checkpoint": (
        lambda r: flip_byte(newest(r.denoiser) / "ema.safetensors"),
        "corrupt-checkpoint",
        set(),
    ),
    "a flipped bit in the bundle": (lambda r: flip_byte(r.model / "vae.safetensors"), "corrupt-bundle", set()),
    "a flipped bit in the latents": (_damage_shard, "corrupt-latents", {"latent-cache"}),
    "a journal cut short": (lambda r: _cut_short(r.journal), "corrupt-journal", set()),
    "a config that is none": (lambda r: r.config.write_text("recipe: ["), "corrupt-config", set()),
    "pictures cut short": (lambda r: _cut_short(r.data / "pictures.npy"), "corrupt-data", set()),
    "a run that was killed": (_stopped, "unfinished", set()),
    "no bundle": (_lose_bundle, "missing-bundle", set()),
    "a bundle of an earlier step": (
        lambda r: edit_bundle(r, lambda d: d["facts"].update(denoiser_steps=60)),
        "stale-bundle",
        set(),
    ),
    "skipped steps": (
        lambda r: append_line(r.metrics, {"stage": "denoiser", "step": 31, "skipped": [3, 7]}),
        "nan-skips",
        set(),
    ),
    "divergence": (
        lambda r: append_line(
            r.journal, {"event": "rolled_back", "stage": "denoiser", "at": 70, "to": 40, "rate": 0.25}
        ),
        "learning-rate-high",
        set(),
    ),
    "too low a rate": (lambda r: edit_records(r, _slowed), "learning-rate-low", set()),
    "too high a rate": (_too_fast, "learning-rate-high", set()),
    "weights that learned nothing": (
        lambda r: mix(r, 1.0, live=True),
        "hardly-trained",
        {"sample-contrast", "condition-unheard", "tint"},
    ),
    "a spike": (lambda r: edit_records(r, _spiked), "loss-spike", set()),
    "overfitting": (lambda r: edit_records(r, _overfitted), "overfitting", set()),
    "an average that is too young": (lambda r: mix(r, 0.5), "ema-young", {"sample-contrast", "hardly-trained"}),
    "a scale from elsewhere": (_constant_scale, "latent-scale", {"tint", "sample-contrast", "latent-cache"}),
    "a channel that is not used": (
        lambda r: edit_vae(r, _unused_channel),
        "dead-channel",
        {"vae-undertrained", "tint"},
    ),
    "a decoder that is hardly trained": (lambda r: edit_vae(r, _decoder_undone), "vae-undertrained", {"tint"}),
    "a tinting autoencoder": (lambda r: edit_vae(r, _tinted), "tint", {"vae-undertrained"}),
    "a tinting denoiser": (lambda r: edit_weights(r, _lopsided), "tint", {"hardly-trained", "sample-contrast"}),
    "a denoiser that is deaf": (lambda r: edit_weights(r, _deaf), "condition-unheard", {"ema-young"}),
    "signal left at the end": (
        lambda r: edit_config(r, process__schedule="scaled-linear"),
        "terminal-snr",
        {"ema-young", "tint", "sample-contrast"},
    ),
    "another process in the bundle": (
        lambda r: edit_bundle(r, lambda d: d["recipe"]["process"].update(schedule="linear")),
        "bundle-settings",
        {"sample-contrast", "tint", "ema-young"},
    ),
    "guidance that was not learned": (
        lambda r: edit_config(r, loss__condition_dropout=0.0),
        "guidance-untrained",
        set(),
    ),
    "guidance of 15": (
        lambda r: edit_config(r, sampling__guidance_scale=15.0),
        "saturated-guidance",
        {"guidance-range", "tint"},
    ),
    "guidance the wrong way": (lambda r: edit_config(r, sampling__guidance_scale=-1.0), "guidance-range", {"tint"}),
    "an interval of no levels": (
        lambda r: edit_config(r, sampling__guidance_interval=[5e3, 6e3]),
        "guidance-range",
        set(),
    ),
    "too few steps": (lambda r: edit_config(r, sampling__num_steps=2), "few-steps", {"tint", "sample-contrast"}),
    "levels never met": (
        lambda r: edit_config(r, loss__density="logit-normal", loss__density_scale=0.2),
        "untrained-levels",
        {"ema-young"},
    ),
}


def _unreadable(folder: Path) -> None:
    for k in range(8):
        (folder / f"{k:03}.png").write_bytes(b"no picture")


def _copied(folder: Path) -> None:
    for k in range(30):
        shutil.copy(folder / f"{k:03}.png", folder / f"copy-{k:03}.png")


def _thinned(folder: Path) -> None:
    for path in sorted(folder.glob("*.png"))[20:]:
        path.unlink()
    (folder / "metadata.jsonl").unlink()


def _blank(folder: Path) -> None:
    for k in range(60):
        Image.new("RGB", (SIZE, SIZE), (k, 2 * k, 255 - k)).save(folder / f"{k:03}.png")


def _captions(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "metadata.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row, text in zip(rows, change([row["text"] for row in rows]), strict=True):
            row["text"] = text
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["text"]))

    return plant


def _unequal(folder: Path) -> None:
    (folder / "metadata.jsonl").unlink()
    for k, path in enumerate(sorted(folder.glob("*.png"))):
        kind = folder / ("rare" if k < 6 else "common")
        kind.mkdir(exist_ok=True)
        path.rename(kind / path.name)


# The same for sets of pictures.
IN_DATA: dict[str, tuple[Callable[[Path], None], str, set[str]]] = {
    "files that are no pictures": (_unreadable, "refused-files", set()),
    "copies": (_copied, "duplicates", {"missing-captions"}),
    "twenty pictures": (_thinned, "too-little-data", set()),
    "blank pictures": (_blank, "flat-pictures", {"duplicates"}),
    "captions of others": (_captions(lambda texts: texts[77:] + texts[:77]), "caption-mismatch", set()),
    "one caption for many": (_captions(lambda texts: ["a picture"] * 80 + texts[80:]), "same-captions", set()),
    "captions that are missing": (_captions(lambda texts: [""] * 30 + texts[30:]), "missing-captions", set()),
    "captions that are too long": (
        _captions(lambda texts: [f"{text}, " + "which is drawn on a light ground " * 20 for text in texts]),
        "captions-cut",
        set(),
    ),
    "unequal classes": (_unequal, "unequal-classes", {"class-mismatch"}),
}
