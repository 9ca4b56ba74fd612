"""The benchmark script, with a model that is known to draw perfectly, or to draw nothing of what it is asked."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "own_concept.py"
NUM_PICTURES, HELD_OUT = 60, 10


class Pooled:
    """An extractor that needs no weights: the picture itself."""

    name, dim = "pixels", 3 * 12 * 12

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Memory:
    """A model that draws the picture of its prompt, or with `blind` another; its codec loses nothing, or all."""

    captioned = True

    def __init__(self, pictures: PictureSet, *, blind: bool = False) -> None:
        self.pictures, self.blind, self.seeds = pictures, blind, []

    def sample_tensor(self, prompts, *, num_images, seed, num_steps, guidance_scale, sampler) -> Tensor:
        assert (num_steps, guidance_scale, sampler) == (20, 3.0, "dpm++2m")
        self.seeds += [seed + k for k in range(len(prompts) * num_images)]
        ids = torch.tensor([self.pictures.captions.index(prompt) for prompt in prompts])
        ids = (ids + self.blind * NUM_PICTURES // 2) % NUM_PICTURES
        return to_float(self.pictures.pixels[ids]).repeat_interleave(num_images, 0)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, x0: Tensor) -> Tensor:
        return x0 + 0.02


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_concept", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_concept", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures() -> PictureSet:
    pixels = torch.randint(0, 250, (NUM_PICTURES, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    return PictureSet(
        pixels=pixels.to(torch.uint8),
        names=[f"{i}.png" for i in range(NUM_PICTURES)],
        captions=[f"thing {i}" for i in range(NUM_PICTURES)],
        labels=[None] * NUM_PICTURES,
        held_out=torch.arange(NUM_PICTURES) < HELD_OUT,
        refused=0,
        source="made",
        attribution="",
        licence="",
    )


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        run=tmp_path,
        prompts=20,
        images=3,
        guidance=3.0,
        steps=20,
        sampler="dpm++2m",
        gallery=40,
        seed=5,
        extractor="pixels",
        out=None,
    )


def _install(script: ModuleType, model: object, pictures: PictureSet | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "load_extractor", lambda name: Pooled())
    monkeypatch.setattr(script, "load_prepared", lambda folder: pictures)
    monkeypatch.setattr(script, "calotype", SimpleNamespace(load=lambda run: model))


def test_a_model_that_remembers(script, pictures, options, monkeypatch) -> None:
    model = Memory(pictures)
    _install(script, model, pictures, monkeypatch)
    report = script.measure(options)
    assert json.loads(json.dumps(report)) == report
    for part, prompts in (("samples", 20), ("held_out_samples", 10)):
        assert report[part]["top1"] == report[part]["top5"] == 1.0
        assert (report[part]["num_prompts"], report[part]["num_samples"]) == (prompts, 3 * prompts)
        assert report[part]["gallery_size"] == 40
    assert report["reconstructions"]["top1"] == report["held_out_reconstructions"]["top1"] == 1.0
    # It repeats its training pictures to the bit.
    assert report["near_copies"]["features"]["share"] == report["near_copies"]["pixels"]["share"] == 1.0
    assert report["vae"]["held_out_psnr"] == pytest.approx(40.0, abs=0.01)
    assert report["vae"]["held_out_pictures"] == HELD_OUT
    assert model.seeds == [*range(5, 5 + 60), *range(5, 5 + 30)]


def test_a_model_that_draws_something_else(script, pictures, options, monkeypatch) -> None:
    _install(script, Memory(pictures, blind=True), pictures, monkeypatch)
    report = script.measure(options)
    assert report["samples"]["top1"] == 0.0
    assert report["samples"]["top5"] < 0.5
    assert report["reconstructions"]["top1"] == 1.0


def test_prompts_and_galleries(script, pictures) -> None:
    train, held_out = pictures.train_ids, pictures.held_out_ids
    choice = script.choose(pictures, train, train, 20, 40, 0)
    assert choice.gallery[:20].tolist() == choice.prompts.tolist()
    assert len(set(choice.gallery.tolist())) == 40
    assert set(choice.gallery.tolist()) <= set(train.tolist())
    again = script.choose(pictures, train, train, 20, 40, 0)
    assert again.gallery.tolist() == choice.gallery.tolist()
    assert script.choose(pictures, train, train, 20, 40, 1).gallery.tolist() != choice.gallery.tolist()
    unseen = script.choose(pictures, held_out, train, 20, 40, 0)
    assert set(unseen.prompts.tolist()) == set(held_out.tolist())
    assert len(set(unseen.gallery.tolist())) == 40


def test_captions_that_several_pictures_share_are_left_out(script, pictures) -> None:
    pictures.captions[20:40] = ["the same"] * 20
    choice = script.choose(pictures, pictures.train_ids, pictures.train_ids, 100, 100, 0)
    assert sorted(choice.gallery.tolist()) == [*range(10, 20), *range(40, 60)]
    pictures.captions[:] = ["the same"] * NUM_PICTURES
    with pytest.raises(UserError, match="no picture has a caption of its own"):
        script.choose(pictures, pictures.train_ids, pictures.train_ids, 100, 100, 0)


def test_a_run_that_cannot_be_scored_is_one_line(script, pictures, options, monkeypatch, capsys) -> None:
    for model, prepared, words in (
        (SimpleNamespace(captioned=False), pictures, "was trained without captions"),
        (Memory(pictures), None, "holds no prepared pictures"),
    ):
        _install(script, model, prepared, monkeypatch)
        monkeypatch.setattr(script, "_options", lambda: options)
        assert script.main() == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        assert words in message
    assert not (options.run / "own_concept.json").exists()


def test_the_report_lies_beside_the_run(script, pictures, options, monkeypatch, capsys) -> None:
    _install(script, Memory(pictures), pictures, monkeypatch)
    monkeypatch.setattr(script, "_options", lambda: options)
    assert script.main() == 0
    assert json.loads(capsys.readouterr().out) == json.loads((options.run / "own_concept.json").read_text())
