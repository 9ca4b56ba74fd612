"""Short captions are learnt in other words too: which words, and what the network knows of them."""

from __future__ import annotations

import json

import pytest
import torch

from calotype.core.progress import Silent
from calotype.images.dataset import PictureSet, load_prepared
from calotype.pipeline import Run, train
from calotype.pipeline.conditions import Conditions, prepare_conditions
from calotype.text import load_text_encoder
from tests.pipeline.conftest import QUICK, paint

LONG = "a disc as round as the full moon"


@pytest.fixture(scope="module")
def reworded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, PictureSet, Conditions]:
    """A run on captions of one word, one long caption and a picture without any."""
    home = tmp_path_factory.mktemp("reworded")
    shapes = paint(home / "shapes", each=4)
    texts = {"disc/0.png": LONG, "disc/1.png": None}
    rows = []
    for name in sorted(str(path.relative_to(shapes)) for path in shapes.rglob("*.png")):
        text = texts.get(name, name.split("/")[0])
        rows.append(json.dumps({"file_name": name} | ({} if text is None else {"text": text})))
    (shapes / "metadata.jsonl").write_text("\n".join(rows))
    overrides = [*QUICK, "loss.rewording=0.5", "condition=text"]
    run = train(shapes, out=home / "run", size=32, steps=2, overrides=overrides)
    pictures = load_prepared(run.data)
    assert pictures is not None
    return run, pictures, prepare_conditions(run, run.recipe, pictures, Silent())


def test_a_draw_chooses_the_words(reworded: tuple[Run, PictureSet, Conditions]) -> None:
    _, pictures, conditions = reworded
    encoder, names = load_text_encoder("minilm"), pictures.names

    def pooled(name: str, draw: float) -> torch.Tensor:
        cond = conditions.batch(torch.tensor([names.index(name)]), torch.tensor([draw]))
        assert cond.text is not None
        assert bool(cond.with_text) is (name != "disc/1.png")
        return cond.text.pooled

    for name, draw, words in (
        ("stripe/0.png", 0.0, "a stripe"),
        ("stripe/0.png", 0.4, "the stripe"),
        ("stripe/0.png", 0.99, "a picture of a stripe"),
        ("stripe/0.png", 1.0, "stripe"),
        ("stripe/0.png", 1.9, "stripe"),
        ("disc/0.png", 0.4, LONG),
    ):
        torch.testing.assert_close(pooled(name, draw), encoder.encode([words]).pooled, rtol=0, atol=1e-3)
    pooled("disc/1.png", 0.4)
    own = conditions.batch(torch.arange(len(pictures)))
    assert own.text is not None
    assert torch.equal(own.text.pooled[names.index("stripe/0.png")], pooled("stripe/0.png", 1.5)[0])


def test_the_whitening_knows_all_wordings(reworded: tuple[Run, PictureSet, Conditions]) -> None:
    run, pictures, conditions = reworded
    vectors = conditions.training_text(pictures)
    held_out = {pictures.captions[i] for i in pictures.held_out_ids.tolist()}
    trained = {pictures.captions[i] for i in pictures.train_ids.tolist()} - {None}
    assert len(vectors) == 4 * len(trained & {"disc", "stripe"}) + (LONG in trained), held_out
    assert run.load("cpu").sample(["a disc"], num_steps=1)[0].size == (32, 32)
