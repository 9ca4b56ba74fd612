"""The card says what a reader must know of this very model, whatever its kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.latents import Codec, load_pretrained_vae
from calotype.pipeline import card
from calotype.pipeline.card import model_card
from tests.latents.pretrained_making import make
from tests.pipeline.exported import CLASSES, make_model

TRAINED = {
    "vae_parameters": 547688,
    "denoiser_parameters": 3157572,
    "vae_steps": 1750,
    "denoiser_steps": 1703,
    "measured": {"held_out_psnr": 23.14224, "held_out_new": 0.25},
    "versions": {"calotype": "0.2.0", "torch": "2.13.0"},
}


@pytest.mark.parametrize(
    ("kind", "command", "python", "how"),
    [
        ({}, "calotype sample FOLDER -n 4", "model.sample(num_images=4, seed=0)", "neither words nor classes"),
        (
            {"classes": CLASSES},
            "calotype sample FOLDER --label disc -n 4",
            "model.sample(labels=['disc'], num_images=4, seed=0)",
            "asked with a class",
        ),
        (
            {"words": True},
            "calotype sample FOLDER 'a red disc' -n 4",
            "model.sample(['a red disc'], num_images=4, seed=0)",
            "asked with words.",
        ),
        (
            {"words": True, "classes": CLASSES},
            "calotype sample FOLDER 'a red disc' -n 4",
            "model.sample(['a red disc'], num_images=4, seed=0)",
            "asked with words and a class",
        ),
    ],
)
def test_how_to_ask_each_kind(kind: dict[str, Any], command: str, python: str, how: str) -> None:
    model = make_model(**kind)
    text = model_card(model)
    assert f"    {command}\n" in text
    assert f"    pictures = {python}\n" in text
    assert how in text
    assert ("text encoder: minilm" in text) == model.captioned
    assert ("disc, big stripe, dot" in text) == bool(model.classes)
    assert ("Prompts far from" in text) == model.captioned


def test_data_scores_and_how_to_make_it_again() -> None:
    model = make_model()
    text = model_card(replace(model, facts={**model.facts, **TRAINED}))
    for said in (
        "- source: drawings\n- 1,040 pictures, 40 of them held out, 3 more unreadable",
        "licence: CC BY 4.0",
        "attribution: A. Painter",
        "| VAE, held-out pictures: PSNR in dB | 23.14 |",
        "| held out new | 0.25 |",
        "547,688 parameters, 1,750 steps; latents 4 x 8 x 8",
        "3,157,572 parameters, 1,703 steps",
        "calotype 0.2.0, torch 2.13.0",
        "--recipe tiny --size 32 --seed 0 --steps 1703 --set vae.steps=1750",
        "seen only the 1,040 pictures above",
        "samples.png",
    ):
        assert said in text, said


def test_what_is_unknown_is_said_to_be() -> None:
    text = model_card(replace(make_model(), facts={}))
    for said in (
        "source: unknown",
        "licence: not stated",
        "attribution: not stated",
        "None were measured",
        "? parameters",
    ):
        assert said in text


def test_an_imported_model_claims_no_training_of_ours() -> None:
    text = model_card(replace(make_model(), facts={"name": "theirs", "imported_from": "the diffusers folder 'theirs'"}))
    assert "imported from the diffusers folder 'theirs'" in text
    assert "It was trained elsewhere" in text
    assert "calotype train" not in text
    assert "trained with calotype" not in text
    assert "samples.png" not in text  # there is none


def test_formats_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    folded = model_card(model)
    assert "- onnx: `calotype export FOLDER --to onnx --out DIR`" in folded
    assert "- diffusers: no: " in folded
    assert "its VAE is of the fast family" in folded
    monkeypatch.setattr(card, "possible", lambda _: {"diffusers": "", "onnx": "it is a drawing"})
    text = model_card(model)
    assert "- diffusers: `calotype export FOLDER --to diffusers --out DIR`" in text
    assert "- onnx: no: it is a drawing" in text


def test_a_vae_and_an_encoder_from_elsewhere_keep_their_licence(tmp_path: Path) -> None:
    vae = load_pretrained_vae(str(make(tmp_path / "their-vae")))
    model = make_model(words=True)
    encoder = {**model.facts["text_encoder"], "id": "openai/clip-vit-base-patch32"}
    codec = Codec(vae, model.codec.statistics, 32)
    text = model_card(replace(model, codec=codec, facts={**model.facts, "text_encoder": encoder}))
    assert "text encoder: openai/clip-vit-base-patch32 (its own licence holds" in text
    assert "VAE: their-vae, not trained here; its weights are in this folder and its own licence holds" in text


def told(**facts: Any) -> str:
    model = make_model()
    return model_card(replace(model, facts={**model.facts, **TRAINED, **facts}))


def test_cost_machine_and_script_where_they_are_known() -> None:
    trained = {"vae_samples": 28000, "vae_seconds": 540, "denoiser_samples": 108992, "denoiser_seconds": 5400}
    text = told(trained={**trained, "machine": "two cores", "script": "runs/tiny.sh"})
    assert "1,750 steps (28,000 pictures seen, 9 minutes); latents" in text
    assert "1,703 steps (108,992 pictures seen, 1.5 hours)\n- machine: two cores\n" in text
    assert "- again, from nothing: `runs/tiny.sh` in calotype's repository" in text
    assert "calotype train DATA" not in text


def test_a_first_stage_that_began_with_an_autoencoder() -> None:
    text = told(vae_from="photos-128", vae_from_sha256="abcdef0123456789", vae_steps=0)
    assert "547,688 parameters, that of photos-128 (sha256 abcdef012345), as it is; latents" in text
    assert "--steps 1703 --set vae.from=photos-128`" in text
    text = told(vae_from="photos-128", vae_from_sha256="abcdef0123456789")
    assert "that of photos-128 (sha256 abcdef012345), and 1,750 steps more; latents" in text
    assert "--set vae.from=photos-128 --set vae.steps=1750`" in text


def test_a_shipped_model_is_called_by_its_name_and_says_what_a_person_wrote_of_it() -> None:
    notes = {"Licence": "Ask first.\n", "What it cannot do": "- Squares.", "Empty": ""}
    half = {"pictures": 32, "mean": 0.0215, "largest": 3}
    text = told(shipped="tiny-32", notes=notes, half=half, sheet="Nothing was chosen.")
    assert "![samples](samples.png)\n\nNothing was chosen.\n" in text
    assert "    calotype sample tiny-32 -n 4\n" in text
    assert "`calotype export tiny-32 --to onnx" in text
    assert "FOLDER" not in text
    assert "## Licence\n\nAsk first.\n\n## Training\n" in text
    assert "## What it cannot do\n\n- Squares.\n\nIt has seen only" in text
    assert "## Empty" not in text
    assert text.count("\n## ") == 8
    assert "32 pictures of both differ by 0.021 of 255 levels on average, at most 3" in text
    assert "float16" not in told()
