"""The kernel distance while the denoiser trains: when it is taken, that it is right, and that it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.files import read_lines
from calotype.core.progress import Silent
from calotype.evaluation import kernel_distance
from calotype.images.dataset import load_prepared
from calotype.images.pixels import to_float
from calotype.latents import Codec, build_vae, read_statistics
from calotype.network.unet import UNet
from calotype.pipeline import Run, scoring, train
from calotype.pipeline.conditions import prepare_conditions
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.scoring import Score, evenly
from calotype.pipeline.weights import denoiser_weights, vae_weights
from calotype.training.checkpoint import newest_checkpoint, read_checkpoint
from calotype.training.denoiser_objective import DenoiserObjective
from tests.pipeline.conftest import QUICK, paint

SCORED = [*QUICK, "training.score_every=2", "training.validate_every=3", "training.keep=20"]
CPU = torch.device("cpu")


class Quarters:
    """The mean colours of a picture's quarters."""

    name, sha256, dim = "quarters", "0" * 64, 12

    def __call__(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(autouse=True)
def quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(device: Any) -> Quarters:
        torch.rand(3)  # as initialising a real one does
        return Quarters()

    monkeypatch.setattr(scoring, "load_extractor", load)


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def scored_steps(run: Run) -> list[int]:
    return [record["step"] for record in read_lines(run.metrics) if "kernel_distance" in record]


def begin(folder: Path, steps: int, settings: list[str], told: Silent | None = None) -> Run:
    return train(paint_once(folder), out=folder / "run", size=32, steps=steps, overrides=settings, reporter=told)


def paint_once(folder: Path) -> Path:
    return folder / "shapes" if (folder / "shapes").exists() else paint(folder / "shapes")


def content(run: Run) -> dict[str, Any]:
    """All that must agree between a run left alone and one that was stopped."""
    newest = newest_checkpoint(run.denoiser, Silent())
    assert newest is not None
    files = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    files |= {path.name: path.read_bytes() for path in (run.folder / "features").iterdir()}
    timeless = [{k: v for k, v in r.items() if k not in ("time", "rate")} for r in read_lines(run.metrics)]
    return files | {"metrics": json.dumps(timeless), "measures": read_checkpoint(newest).measures}


def test_it_is_taken_every_so_many_steps_and_at_the_end_whether_stopped_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = begin(tmp_path / "whole", 7, SCORED)
    assert scored_steps(whole) == [2, 4, 6, 7]
    records = [record for record in read_lines(whole.metrics) if "kernel_distance" in record]
    assert all(r["kernel_distance_low"] < r["kernel_distance"] < r["kernel_distance_high"] for r in records)
    assert all("held_out_error" in record for record in records)  # one record of both
    measures = read_checkpoint(whole.denoiser / "step-00000007").measures
    assert {"kernel_distance", "held_out_error"} <= measures.keys()
    for stop in (3, 6):
        monkeypatch.setattr(DenoiserObjective, "losses", dying(DenoiserObjective.losses, stop))
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path / "stopped", 7, SCORED)
        monkeypatch.undo()
        monkeypatch.setattr(scoring, "load_extractor", lambda device: Quarters())
    stopped = begin(tmp_path / "stopped", 7, SCORED)
    assert content(stopped) == content(whole)


def dying(losses: Callable[..., Any], at: int) -> Callable[..., Any]:
    def compute(self: DenoiserObjective, step: int, ids: Tensor) -> Any:
        if step == at:
            raise KeyboardInterrupt
        return losses(self, step, ids)

    return compute


def test_it_changes_nothing_that_is_learned_and_a_short_run_has_none(tmp_path: Path) -> None:
    scored = begin(tmp_path / "scored", 3, SCORED)
    rarely = begin(tmp_path / "rarely", 3, [*SCORED, "training.score_every=4"])
    assert scored_steps(scored) == [2, 3]
    assert scored_steps(rarely) == []
    assert not (rarely.folder / "features").exists()
    for file in ("denoiser.safetensors", "vae.safetensors"):
        assert (scored.model / file).read_bytes() == (rarely.model / file).read_bytes()


def test_without_the_extra_it_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(device: Any) -> Quarters:
        raise UserError("scores need package 'nothing'", "pip install 'calotype[eval]'")

    monkeypatch.setattr(scoring, "load_extractor", lacking)
    told = Told()
    run = begin(tmp_path, 6, SCORED, told)
    assert scored_steps(run) == []
    said = [line for line in told.lines if "kernel distance" in line]
    assert said == [
        "no kernel distance while it trains: scores need package 'nothing': pip install 'calotype[eval]'",
    ]


def test_the_best_weights_are_those_of_the_lowest_kernel_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the best by held-out error are kept too, for who asks otherwise; without scores they are the best."""
    distances, errors = iter([3.0, 1.0, 2.0, 4.0]), iter([3.0, 2.5, 1.0, 2.0, 3.0])
    monkeypatch.setattr(Score, "__call__", lambda self, network: {"kernel_distance": next(distances)})
    monkeypatch.setattr(DenoiserObjective, "validate", lambda self, network: {"held_out_error": next(errors)})
    settings = [*SCORED, "training.keep=1", "training.validate_every=2", "training.post_hoc=null"]
    run = begin(tmp_path, 8, settings)
    assert [path.name for path in sorted(run.denoiser.glob("step-*"))] == [f"step-{step:08d}" for step in (4, 6, 8)]
    best = read_checkpoint(run.denoiser / "step-00000004").tensors["ema"]
    assert all(torch.equal(value, best[name]) for name, value in denoiser_weights(run.denoiser, "best").items())


@pytest.fixture(scope="module")
def score(class_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Score]:
    """A new score of a finished run, which keeps its features elsewhere."""
    pictures = load_prepared(class_run.data)
    assert pictures is not None
    conditions = prepare_conditions(class_run, class_run.recipe, pictures, Silent())
    recipe = conditions.fill(class_run.recipe)
    vae, statistics = build_vae(recipe.vae.network), read_statistics(class_run.latents)
    assert statistics is not None
    vae.load_state_dict(vae_weights(class_run.vae))
    codec = Codec(vae, statistics, recipe.size)
    elsewhere = Run(tmp_path_factory.mktemp("score"))
    return lambda: Score(elsewhere, recipe, codec, conditions, pictures, CPU, Silent())


@pytest.fixture
def network(class_run: Run, score: Callable[[], Score]) -> UNet:
    """That of the same run."""
    network = UNet(score().recipe.network)
    network.load_state_dict(denoiser_weights(class_run.denoiser))
    return network


def test_it_repeats_itself_and_draws_nothing_at_random(score: Callable[[], Score], network: UNet) -> None:
    before = torch.random.get_rng_state()
    first = score()(network)
    assert first == score()(network)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        next(iter(network.parameters())).add_(1.0)
    assert score()(network) != first


def test_what_is_asked_for_comes_in_the_datas_proportion(score: Callable[[], Score]) -> None:
    made = score()
    wide = replace(made, pictures=replace(made.pictures, held_out=torch.zeros(len(made.pictures), dtype=torch.bool)))
    assert len(wide.asked) == len(made.pictures)
    labels = [made.pictures.labels[i] for i in wide.asked.tolist()]
    assert labels.count("disc") == labels.count("stripe")
    assert evenly(torch.arange(10, 20), 4).tolist() == [10, 12, 15, 17]
    assert evenly(torch.arange(3), 4).tolist() == [0, 1, 2]
    thousand = torch.arange(1000)
    assert torch.bincount(evenly(thousand, 64) // 500).tolist() == [32, 32]


def test_samples_that_are_the_real_pictures_score_as_their_reconstructions_do(
    score: Callable[[], Score], network: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sampler that returns the very latents of what was asked for: the condition of each is its own."""
    made = score()
    real = to_float(made.pictures.pixels)
    latents = made.codec.encode(real)
    asked: list[Tensor] = []

    def draw(self: Diffuser, seeds: Tensor, labels: Any, noise: Any = None) -> Tensor:
        asked.append(labels.label)
        return latents[made.asked]

    monkeypatch.setattr(Diffuser, "reverse_diffusion", draw)
    found = made(network)["kernel_distance"]
    extractor = Quarters()
    decoded = made.codec.decode(latents[made.asked])
    assert found == pytest.approx(kernel_distance(extractor(decoded), extractor(real)), rel=1e-6)
    classes = [made.pictures.classes.index(str(made.pictures.labels[i])) for i in made.asked.tolist()]
    assert torch.cat(asked).tolist() == classes
