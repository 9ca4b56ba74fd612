"""Captions and classes together, either missing here and there; the text encoder a folder of the user's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calotype.cli.main import run as command_line
from calotype.core.errors import UserError
from calotype.core.files import read_json
from calotype.core.progress import Silent
from calotype.images.dataset import load_prepared
from calotype.network import Condition, NetworkDenoiser
from calotype.pipeline import Pipeline, Run, load, train
from calotype.pipeline.conditions import prepare_conditions
from tests.pipeline.conftest import QUICK, paint
from tests.text import encoders

SMALL = [
    *QUICK,
    "network.channels=[8, 16]",
    "network.attention=[false, true]",
    "network.emb_channels=16",
    "loss.rewording=0",
]
SILENT, CLASSLESS, NEITHER = "disc/0.png", "disc/1.png", "disc/2.png"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on drawn pictures with a class and a caption each, but for three of them."""
    home = tmp_path_factory.mktemp("mixed")
    shapes, encoder = paint(home / "shapes"), encoders.save(home / "encoder", "bert")
    rows = []
    for name in sorted(str(path.relative_to(shapes)) for path in shapes.rglob("*.png")):
        row = {"file_name": name, "text": f"a {'red' if 'disc' in name else 'blue cat'}", "label": name.split("/")[0]}
        absent = {SILENT: ["text"], CLASSLESS: ["label"], NEITHER: ["text", "label"]}.get(name, [])
        rows.append(json.dumps({key: value for key, value in row.items() if key not in absent}))
    (shapes / "metadata.jsonl").write_text("\n".join(rows))
    overrides = [*SMALL, f"text_encoder={encoder}", "network.text_tokens=true"]
    return train(shapes, out=home / "run", size=32, steps=2, overrides=overrides)


@pytest.fixture(scope="module")
def model(mixed: Run) -> Pipeline:
    return mixed.load("cpu")


def asked(model: Pipeline, *prompts: str, **wishes: object) -> Condition:
    """What the network is asked in the first step of a sampling."""
    seen: list[Condition] = []

    def network(x: torch.Tensor, time: torch.Tensor, cond: Condition) -> torch.Tensor:
        seen.append(cond)
        return 0 * x

    spied = replace(model, denoiser=NetworkDenoiser(network, model.process, "v"))
    spied.sample_tensor(list(prompts), num_steps=1, **{"guidance_scale": 1.0, **wishes})  # type: ignore[arg-type]
    return seen[0]


def test_each_picture_has_what_there_is_of_it(mixed: Run, model: Pipeline) -> None:
    pictures = load_prepared(mixed.data)
    assert pictures is not None
    conditions = prepare_conditions(mixed, mixed.recipe, pictures, Silent())
    cond = conditions.batch(torch.arange(len(pictures)))
    assert cond.label is not None
    assert cond.text is not None
    rows = {
        name: (bool(cond.null[i]), int(cond.label[i]), bool(cond.with_text[i])) for i, name in enumerate(pictures.names)
    }
    assert rows[SILENT] == (False, 0, False)
    assert rows[CLASSLESS] == (False, -1, True)
    assert rows[NEITHER] == (True, -1, False)
    assert rows["disc/3.png"] == (False, 0, True)
    assert rows["stripe/0.png"] == (False, 1, True)
    encoded = model.text_encoder.encode(["a blue cat", "a red"])
    stripe, disc = (pictures.names.index(name) for name in ("stripe/0.png", "disc/3.png"))
    torch.testing.assert_close(cond.text.pooled[[stripe, disc]], encoded.pooled)
    torch.testing.assert_close(cond.text.tokens[[stripe, disc]], encoded.tokens)
    config = model.network.config
    assert (config.num_classes, config.text_dim, config.token_dim, config.text_tokens) == (2, 16, 16, True)
    assert model.facts["text_encoder"] == {
        "id": "encoder",
        "sha256": model.text_encoder.fingerprint,
        "dim": 16,
        "token_dim": 16,
    }


def test_a_model_of_both_is_asked_for_both_or_for_either(model: Pipeline) -> None:
    both = asked(model, "a red", labels=["stripe"])
    assert both.label is not None
    assert both.text is not None
    assert (both.null.tolist(), both.label.tolist()) == ([False], [1])
    torch.testing.assert_close(both.text.pooled, model.text_encoder.encode(["a red"]).pooled)
    words, classes, nothing = asked(model, "a red"), asked(model, labels=["disc"]), asked(model)
    assert (words.label, classes.text) == (None, None)
    assert classes.label is not None
    assert (words.null.tolist(), classes.null.tolist(), nothing.null.tolist()) == ([False], [False], [True])
    spread = asked(model, "a red", labels=["stripe", "disc"], num_images=2)
    assert spread.label is not None
    assert spread.label.tolist() == [1, 1, 0, 0]
    same = asked(model, "a red", "a dog", labels="stripe")
    assert same.label is not None
    assert same.label.tolist() == [1, 1]
    with pytest.raises(UserError, match=r"2 prompts and 3 labels were given: give as many of each, or one of either"):
        model.sample(["a", "b"], labels=["disc", "disc", "stripe"])


def test_a_negative_prompt_goes_with_a_class(model: Pipeline) -> None:
    guided = asked(model, labels=["disc"], negative="a cat", guidance_scale=2.0)
    assert guided.label is not None
    assert guided.text is not None
    assert guided.null.tolist() == [False, False]
    assert sorted(guided.label.tolist()) == [-1, 0]
    assert sorted(guided.with_text.tolist()) == [False, True]
    assert guided.with_text.tolist() == [label < 0 for label in guided.label.tolist()]


def test_pictures_carry_prompt_and_class(mixed: Run, model: Pipeline, tmp_path: Path, capsys) -> None:
    (drawn,) = model.sample("a red", labels="disc", num_steps=1)
    assert (drawn.info["calotype"]["prompt"], drawn.info["calotype"]["label"]) == ("a red", "disc")
    words = ["sample", str(mixed.folder), "a red", "a dog", "--label", "disc", "--steps", "1"]
    assert command_line([*words, "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["label"] for entry in told["pictures"]] == ["disc", "disc"]
    assert [Path(entry["path"]).name for entry in told["pictures"]] == ["disc-a-red-0.png", "disc-a-dog-1.png"]


def test_a_missing_encoder_is_named_and_may_be_given(mixed: Run, tmp_path: Path, capsys) -> None:
    shutil.copytree(mixed.model, tmp_path / "model")
    description = read_json(tmp_path / "model" / "model.json")
    description["recipe"]["text_encoder"] = str(tmp_path / "gone")
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    (tmp_path / "model" / "manifest.json").unlink()
    words = ["sample", str(tmp_path / "model"), "a red", "--steps", "1", "--out", str(tmp_path / "out")]
    assert command_line(words) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: the model needs text encoder encoder, but text encoder '")
    assert line.endswith("as --text-encoder FOLDER_OR_ID (in Python: load(..., text_encoder=...))")
    assert len(line.splitlines()) == 1
    encoder = mixed.folder.parent / "encoder"
    assert command_line([*words, "--text-encoder", str(encoder)]) == 0
    found = load(tmp_path / "model", "cpu", text_encoder=str(encoder)).sample_tensor("a red", num_steps=1)
    assert torch.equal(found, mixed.load("cpu").sample_tensor("a red", num_steps=1))
    other = encoders.save(tmp_path / "other", "clip")
    with pytest.raises(
        UserError, match=r"other' is not the encoder of the training \(sha256 \w{12}, expected \w{12}\)"
    ):
        load(tmp_path / "model", "cpu", text_encoder=str(other)).sample("a red")
    assert load(tmp_path / "model", "cpu").sample(labels="disc", num_steps=1), "classes need no encoder"


def test_captions_are_encoded_once_and_anew_for_another_encoder(
    mixed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path(shutil.copytree(mixed.folder, tmp_path / "run")))
    pictures, recipe = load_prepared(run.data), mixed.recipe
    assert pictures is not None
    (shard,) = run.captions.glob("*/*.safetensors")
    known = shard.stat().st_ino
    prepare_conditions(run, recipe, pictures, Silent())
    assert shard.stat().st_ino == known
    assert read_json(shard.parent / "key.json")["id"] == "encoder"
    pooled = recipe.model_copy(update={"network": recipe.network.model_copy(update={"text_tokens": False})})
    other = recipe.model_copy(update={"text_encoder": str(encoders.save(tmp_path / "clip", "clip-projection"))})
    for changed in (pooled, other):
        with pytest.raises(UserError, match="was trained with captions of another text encoder"):
            prepare_conditions(run, changed, pictures, Silent())
    shutil.rmtree(run.denoiser)
    shutil.rmtree(run.model)
    with pytest.raises(UserError, match="has no model yet"):
        load(run.folder, "cpu", text_encoder=other.text_encoder)
    assert shard.stat().st_ino == known, "who only looks changes nothing"
    fewer = prepare_conditions(run, pooled, pictures, Silent())
    assert fewer.unique is not None
    assert fewer.unique.tokens.shape == (2, 0, 16)
    anew = prepare_conditions(run, other, pictures, Silent())
    assert anew.unique is not None
    assert (anew.unique.pooled.shape, anew.unique.tokens.shape) == ((2, 12), (2, 5, 16))
