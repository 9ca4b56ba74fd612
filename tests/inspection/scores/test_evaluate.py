"""From a run to the record of its scores, through the real path."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.files import verify_folder
from calotype.images.dataset import PictureSet, load_prepared
from calotype.images.pixels import to_float
from calotype.inspection.scores import RECORD, evaluate, read_scores
from calotype.inspection.scores.drawing import draw
from calotype.inspection.scores.gathered import Gathered, Rows, by_row
from calotype.inspection.scores.measure import distances, fidelity
from calotype.inspection.scores.roles import assign
from calotype.inspection.scores.words import describe
from calotype.pipeline import Pipeline, Run, train
from calotype.pipeline.bundle import rewrite_bundle
from tests.pipeline.conftest import QUICK, paint

WORDS = ("names", "captions", "labels")
SCORES = {"kernel", "frechet", "frechet_infinity", "precision", "recall", "density", "coverage"}


class Blocks:
    """Features that are averages of blocks, so that tests need neither packages nor minutes."""

    name, sha256, dim = "blocks", "b" * 64, 48

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.inspection.scores.record.load_extractor", lambda name, device: Blocks())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("scored")
    return train(paint(home / "shapes", each=48), out=home / "run", size=32, steps=4, overrides=QUICK)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    return Run(Path(shutil.copytree(finished.folder, tmp_path / "run")))


def pictures_of(run: Run) -> PictureSet:
    pictures = load_prepared(run.data)
    assert pictures is not None
    return pictures


def test_a_run_is_scored_and_its_bundle_says_so(run: Run) -> None:
    record = evaluate(run.folder, prompts=20, num_images=2, device="cpu")
    assert json.loads((run.folder / RECORD).read_text()) == record == read_scores(run.folder)
    assert record["made"] | {"sampling": None} == {
        "count": 40,
        "seed": 0,
        "asked": "classes",
        "weights": "averaged",
        "num_images": 2,
        "sampling": None,
    }
    found = record["distances"]
    assert found["samples"].keys() == found["ceiling"].keys() == SCORES
    assert found["samples"]["kernel"]["count"] == 20
    assert record["fidelity"]["captions"] is None
    assert set(record["fidelity"]["classes"]["by_class"]) == {"disc", "stripe"}
    assert record["memorization"]["pixels"]["recalled"] is None
    verify_folder(run.model, sealed=True)
    assert run.load("cpu").facts["scores"] == record
    assert "kernel distance" in "\n".join(text for _, text in describe(record)).lower()


def test_the_same_call_gives_the_same_numbers(run: Run) -> None:
    first, again = (evaluate(run.folder, prompts=20, device="cpu", seed=3) for _ in range(2))
    assert first | {"seconds": 0, "model": 0} == again | {"seconds": 0, "model": 0}


def test_other_settings_are_scored_but_not_written_into_the_bundle(run: Run, tmp_path: Path) -> None:
    record = evaluate(run.folder, prompts=20, sampling={"num_steps": 2}, device="cpu", out=tmp_path / "other.json")
    assert record["made"]["sampling"]["num_steps"] == 2
    assert "scores" not in run.load("cpu").facts
    assert not (run.folder / RECORD).exists()


def test_what_was_tried_leaves_the_own_scores_alone(run: Run) -> None:
    record = evaluate(run.folder, prompts=20, device="cpu")
    evaluate(run.folder, prompts=20, sampling={"num_steps": 2}, device="cpu")
    assert read_scores(run.folder) == record
    assert json.loads((run.folder / "evaluation-tried.json").read_text())["made"]["sampling"]["num_steps"] == 2


def test_scores_of_other_defaults_are_not_taken_for_its_own(run: Run) -> None:
    evaluate(run.folder, prompts=20, device="cpu")
    sampling = run.load("cpu").recipe.sampling
    rewrite_bundle(run.model, sampling=sampling.model_copy(update={"num_steps": 7}))
    assert read_scores(run.folder) is None


def test_scores_of_an_older_model_are_not_taken_for_its_own(run: Run) -> None:
    evaluate(run.folder, prompts=20, device="cpu")
    assert read_scores(run.folder) is not None
    source = run.read_config()["data"]
    train(source, out=run.folder, size=32, steps=6, overrides=QUICK)
    assert read_scores(run.folder) is None


def test_scores_beside_other_pictures_are_not_its_own(run: Run, tmp_path: Path) -> None:
    evaluate(run.folder, data=str(paint(tmp_path / "others", each=20)), prompts=10, device="cpu")
    assert read_scores(run.folder) is None
    assert "scores" not in run.load("cpu").facts


def test_a_model_of_the_package_is_scored_and_left_as_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, here = tmp_path / "package", tmp_path / "here"
    shutil.copytree(run.model, package / "discs-32")
    here.mkdir()
    before = {path.name: path.read_bytes() for path in (package / "discs-32").iterdir()}
    monkeypatch.setattr("calotype.pipeline.shipped.shipped_folder", lambda: package)
    monkeypatch.chdir(here)
    others = str(paint(tmp_path / "others", each=20))
    for target in ("discs-32", package / "discs-32"):
        evaluate(target, data=others, prompts=10, device="cpu")
        assert {path.name: path.read_bytes() for path in (package / "discs-32").iterdir()} == before
        (here / "evaluation-tried.json").unlink()


def test_a_model_that_changes_while_it_is_scored_does_not_get_these_scores(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*given: Any, **named: Any) -> Any:
        weights = {name: 0 * tensor for name, tensor in run.load("cpu").network.state_dict().items()}
        rewrite_bundle(run.model, weights=weights)
        return draw(*given, **named)

    monkeypatch.setattr("calotype.inspection.scores.record.draw", changed)
    evaluate(run.folder, prompts=10, device="cpu")
    assert read_scores(run.folder) is None
    assert "scores" not in run.load("cpu").facts


def test_fewer_held_out_pictures_get_no_score_that_grows_with_their_number(run: Run) -> None:
    roles = assign(pictures_of(run), "classes", 40, 0)
    generator = torch.Generator().manual_seed(0)
    rows = by_row(roles.rows, torch.randn(len(roles.rows), 8, generator=generator))
    several = replace(roles, held_out=roles.rows[:20])  # enough to be measured, fewer than the samples
    made, none = torch.randn(len(roles.asked), 8, generator=generator), torch.zeros(0)
    found = distances(Gathered(several, 1, none, None, Rows(none, {}), made, None, rows, rows, thorough=False))
    assert found["samples"]["coverage"] is not None
    assert found["floor"]["kernel"] is not None
    assert [found["floor"][name] for name in ("frechet", "recall", "coverage")] == [None] * 3


def test_where_pictures_are_few_none_votes_for_its_own_reconstruction(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that know nothing of classes are right by chance, though every reconstruction lies on its picture."""
    monkeypatch.setattr("calotype.inspection.scores.measure.NEIGHBOURS", 1)
    few = pictures_of(run)
    ids = few.train_ids[:60]
    alone = replace(few, pixels=few.pixels[ids], held_out=torch.zeros(60, dtype=torch.bool))
    alone = replace(alone, **{name: [getattr(few, name)[i] for i in ids.tolist()] for name in WORDS})
    roles = assign(alone, "classes", 60, 0)
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    rows, none = by_row(torch.arange(60), features), torch.zeros(0)
    gathered = Gathered(roles, 1, none, None, Rows(none, {}), features[roles.asked], None, rows, rows, thorough=False)
    assert fidelity(gathered, alone)["classes"]["ceiling"]["value"] < 0.8


def test_a_blur_that_makes_one_class_look_like_another_does_not_decide(run: Run) -> None:
    """Blurred discs look like sharp stripes: samples of discs are right beside blurred pictures, wrong beside sharp."""
    pictures = pictures_of(run)
    roles = assign(pictures, "classes", 40, 0)
    disc, stripe, blurred_disc, blurred_stripe = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0.4], [0, 1, -0.4]])
    is_disc = torch.tensor([label == "disc" for label in pictures.labels])[:, None]
    noise = 0.01 * torch.randn(len(is_disc), 3, generator=torch.Generator().manual_seed(0))
    everything, none = torch.arange(len(is_disc)), torch.zeros(0)
    sharp = by_row(everything, torch.where(is_disc, disc, stripe) + noise)
    blurred = by_row(everything, torch.where(is_disc, blurred_disc, blurred_stripe) + noise)
    made = blurred[roles.asked]
    found = fidelity(Gathered(roles, 1, none, None, Rows(none, {}), made, None, sharp, blurred, False), pictures)
    classes = found["classes"]
    assert [classes[name]["value"] for name in ("right", "ceiling", "real")] == [1, 1, 1]
    assert classes["among_real"]["value"] == pytest.approx(float((~is_disc[roles.asked]).double().mean()))
    wrong = blurred[roles.asked] * torch.tensor([1, 1, -1.0])
    found = fidelity(Gathered(roles, 1, none, None, Rows(none, {}), wrong, None, sharp, blurred, False), pictures)
    assert found["classes"]["right"]["value"] == 0


def perfect(monkeypatch: pytest.MonkeyPatch, run: Run, choose: Any) -> None:
    """Let the autoencoder lose nothing, and the model "draw" real pictures: `choose` gives the row of each."""
    pictures = pictures_of(run)

    def drawn(self: Pipeline, prompts: Any = None, *, labels: Any = None, seed: int = 0, **_: Any) -> Tensor:
        rows = torch.tensor([choose(pictures, label, seed + k) for k, label in enumerate(labels)])
        return to_float(pictures.pixels[rows])

    monkeypatch.setattr("calotype.inspection.scores.gathered.reconstruct", lambda model, pixels: pixels)
    monkeypatch.setattr(Pipeline, "sample_tensor", drawn)


def test_a_copier_is_found_and_its_classes_are_right(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_class(pictures: Any, label: str, seed: int) -> int:
        rows = [row for row in pictures.train_ids.tolist() if pictures.labels[row] == label]
        return int(rows[seed % len(rows)])

    perfect(monkeypatch, run, of_class)
    record = evaluate(run.folder, prompts=40, device="cpu")
    assert record["memorization"]["verdict"] == "memory"
    assert all(near["copy"] for near in record["nearest"])
    classes = record["fidelity"]["classes"]
    assert classes["right"]["value"] == pytest.approx(classes["ceiling"]["value"], abs=0.15)


def test_the_wrong_class_is_seen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_other(pictures: Any, label: str, seed: int) -> int:
        rows = [row for row in pictures.train_ids.tolist() if pictures.labels[row] != label]
        return int(rows[seed % len(rows)])

    before = evaluate(run.folder, prompts=40, device="cpu")["fidelity"]["classes"]
    perfect(monkeypatch, run, of_other)
    classes = evaluate(run.folder, prompts=40, device="cpu")["fidelity"]["classes"]
    assert classes["right"]["value"] < 0.5 <= classes["ceiling"]["value"]
    assert before["chance"] == pytest.approx(0.5, abs=0.1)


def test_what_is_no_model_is_told_so_before_pictures_are_asked_for() -> None:
    with pytest.raises(UserError, match="no model 'nothing'"):
        evaluate("nothing", device="cpu")


def test_a_bundle_needs_pictures_to_be_measured_against(run: Run, tmp_path: Path) -> None:
    bundle = shutil.copytree(run.model, tmp_path / "bundle")
    with pytest.raises(UserError, match="without pictures"):
        evaluate(bundle, device="cpu")
    record = evaluate(bundle, data=run.read_config()["data"], prompts=20, device="cpu")
    own = evaluate(run.folder, prompts=20, device="cpu")
    assert record["distances"] == own["distances"]
    assert "scores" not in json.loads((bundle / "model.json").read_text())["facts"]
