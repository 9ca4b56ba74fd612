"""Each mistake of a user's is one clear line, in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.cli.main import run as command_line
from calotype.core.errors import UserError
from calotype.pipeline import Run

Spoil = Callable[[Path], None]


def description(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Edits model.json in place."""

    def spoil(folder: Path) -> None:
        values = json.loads((folder / "model.json").read_text())
        change(values)
        (folder / "model.json").write_text(json.dumps(values))

    return spoil


def cut(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1000])

    return spoil


def weights(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return spoil


BUNDLES: dict[str, tuple[Spoil, str]] = {
    "a newer format": (
        description(lambda d: d.update(format_version=99)),
        "model.json has format 99, this calotype reads 2: update calotype",
    ),
    "an older format": (
        description(lambda d: d.update(format_version=1)),
        "has format 1: an older calotype made it, this one reads 2: train again with the same data and seed",
    ),
    "no format": (description(lambda d: d.pop("format_version")), "it has no format_version"),
    "an unknown key": (
        description(lambda d: d.update(clases=[])),
        "model.json: unknown key 'clases': did you mean 'classes'?",
    ),
    "a missing key": (description(lambda d: d.pop("latents")), "model.json has no key 'latents'"),
    "an unknown key of the recipe": (
        description(lambda d: d["recipe"]["network"].update(chanels=[8])),
        "model.json: recipe: unknown key 'network.chanels': did you mean 'network.channels'?",
    ),
    "a missing key of the recipe": (description(lambda d: d["recipe"].pop("size")), "model.json: recipe: size"),
    "a missing key of the latents": (description(lambda d: d["latents"].pop("bound")), "model.json: latents: bound"),
    "facts that are none": (description(lambda d: d.update(facts=7)), "model.json is not a model's"),
    "a model.json that is none": (
        lambda folder: (folder / "model.json").write_text("[1]"),  # type: ignore[func-returns-value]
        "model.json is not a model's",
    ),
    "a truncated model.json": (cut("model.json"), "model.json is not valid JSON"),
    "a truncated VAE": (cut("vae.safetensors"), "vae.safetensors is not whole"),
    "a truncated denoiser": (cut("denoiser.safetensors"), "denoiser.safetensors is not whole"),
    "no denoiser": (lambda folder: (folder / "denoiser.safetensors").unlink(), "denoiser.safetensors is missing"),
    "another width": (
        description(lambda d: d["recipe"]["network"].update(channels=[8, 32])),
        "denoiser.safetensors is of another architecture than its config: it has 'conv_in.bias' of shape (16,), "
        "not (8,)",
    ),
    "a weight too few": (weights("vae.safetensors", lambda t: t.pop(min(t))), "than its config: it lacks '"),
    "a weight too many": (
        weights("denoiser.safetensors", lambda t: t.update(aaa=torch.zeros(1))),
        "it has 'aaa', which the network lacks",
    ),
}


@pytest.mark.parametrize("what", BUNDLES)
def test_a_spoilt_bundle(class_run: Run, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = BUNDLES[what]
    folder = Path(shutil.copytree(class_run.model, tmp_path / "model"))
    (folder / "manifest.json").unlink()
    spoil(folder)
    assert command_line(["sample", str(folder), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.rstrip("\n")
    assert line.startswith("error: ")
    assert said in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_architecture(class_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(class_run.folder, tmp_path / "run")))
    shutil.rmtree(run.model)
    config = run.config.read_text()
    assert "middle_blocks: 1" in config
    run.config.write_text(config.replace("middle_blocks: 1", "middle_blocks: 2"))
    with pytest.raises(UserError, match=r"denoiser is of another architecture than its config: it lacks 'middle\.1\."):
        run.load("cpu")


def test_pictures_and_latents_of_another_size(class_run: Run) -> None:
    model = class_run.load("cpu")
    for shape in ((1, 3, 4, 4), (1, 4, 5, 4), (1, 4, 8, 8), (4, 4, 4), (0, 4, 4, 4)):
        with pytest.raises(UserError) as caught:
            model.decode(torch.zeros(shape))
        assert str(caught.value) == f"latents of shape {shape} do not fit this model: give (b, 4, 4, 4)"
    for shape in ((1, 1, 32, 32), (2, 3, 32, 40), (3, 32, 32)):
        with pytest.raises(UserError) as caught:
            model.encode(torch.zeros(shape))
        assert str(caught.value) == f"pictures of shape {shape} do not fit this model: give (b, 3, 32, 32)"


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("minilmm", "no text encoder 'minilmm': did you mean 'minilm'?"),
        ("nowhere/at/all", "text encoder 'nowhere/at/all' is neither a folder nor a hub id (owner/name)"),
        ("owner/name", "not to be had now (HF_HUB_OFFLINE is set): download config.json, model.safetensors and"),
    ],
)
def test_a_text_encoder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoder: str, said: str
) -> None:
    from huggingface_hub import constants

    from tests.pipeline.conftest import paint

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    shapes = paint(tmp_path / "shapes", each=2)
    for path in shapes.rglob("*.png"):
        path.with_suffix(".txt").write_text("a shape")
    words = ["train", str(shapes), "--size", "32", "--steps", "1", "--out", str(tmp_path / "run")]
    assert command_line([*words, "--set", f"text_encoder={encoder}"]) == 2
    assert said in capsys.readouterr().err.rstrip("\n").splitlines()[-1]
