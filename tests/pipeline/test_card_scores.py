"""The card shows an evaluation with intervals, floor and ceiling, and what the numbers were taken of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from calotype.pipeline.card import model_card
from calotype.recipes import SamplingSection
from tests.pipeline.exported import make_model


def estimate(value: float, width: float = 0.5) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width, "count": 192}


def distances(factor: float) -> dict[str, Any]:
    names = ("kernel", "frechet", "frechet_infinity", "precision", "recall", "density", "coverage")
    return {name: estimate(factor * (k + 1), 0.25) for k, name in enumerate(names)}


def scores(**changes: Any) -> dict[str, Any]:
    fidelity = {"top1": 0.6, "top5": 0.8, "ceiling1": 0.9, "ceiling5": 0.95}
    captions = {name: estimate(value, 0.05) for name, value in fidelity.items()}
    captions |= {"chance1": 1 / 512, "chance5": 5 / 512, "prompts": 192, "images_per_prompt": 4, "gallery": 512}
    copies = {"copies": estimate(0.4, 0.1), "baseline": estimate(0.05, 0.01)}
    made = {"count": 768, "seed": 100000, "asked": "captions", "weights": "averaged", "num_images": 4}
    made["sampling"] = SamplingSection().model_dump(mode="json")
    return {
        "format": 2,
        "extractor": {"name": "efficientnet-lite0", "sha256": "579344248a93e2" + "0" * 50},
        "made": made,
        "distances": {"samples": distances(1), "ceiling": distances(0.5), "floor": None, "count": 768},
        "fidelity": {"captions": captions, "held_out_captions": None, "classes": None},
        "memorization": {"verdict": "partly", "summary": "Some are copies.", "pixels": copies, "features": None},
        **changes,
    }


def card(**facts: Any) -> str:
    model = make_model()
    return model_card(replace(model, facts={**model.facts, **facts}))


def test_every_number_has_its_interval_and_says_what_it_was_taken_of() -> None:
    text = card(scores=scores(), measured={"held_out_psnr": 23.1})
    for said in (
        "768 pictures of training captions, 4 a prompt, from seed 100000, averaged weights, dpm++2m in 20 steps, "
        "guidance 3; features: efficientnet-lite0 (sha256 579344248a93)",
        "| against real pictures | samples | reconstructions (the best that its VAE allows) |\n",
        "| kernel distance, 10⁻³ | 1000 [750, 1250] | 500 [250, 750] |",
        "| coverage | 7.00 [6.75, 7.25] | 3.50 [3.25, 3.75] |",
        "the own picture is among the first five of 512 | 80 [75, 85] | 95 [90, 100] | 0.98 |",
        "Memory: Some are copies. Nearly a training picture: by pixels 40 [30, 50] % of its pictures, ",
        "of its pictures, 5.0 [4.0, 6.0] % of real pictures",
        "PSNR in dB | 23.1 |",
    ):
        assert said in text, said
    assert "None were measured" not in text
    assert "were changed after" not in text


def test_classes_and_pictures_that_were_asked_for_nothing() -> None:
    classes = {"right": estimate(0.7, 0.1), "ceiling": estimate(0.9, 0.1), "real": None, "chance": 0.5, "by_class": {}}
    fidelity = {"captions": None, "held_out_captions": None, "classes": classes}
    assert "| drawn as the class asked for | 70 [60, 80] | 90 [80, 100] | 50 |" in card(
        scores=scores(fidelity=fidelity)
    )
    none = {"captions": None, "held_out_captions": None, "classes": None}
    made = {**scores()["made"], "asked": "nothing", "num_images": 1}
    text = card(scores=scores(fidelity=none, made=made, distances={"samples": None, "ceiling": None, "floor": None}))
    assert "768 pictures asked for nothing, from seed" in text
    assert "as asked, in %" not in text
    assert "against real pictures |" not in text


def test_scores_of_other_settings_are_known_as_such_and_the_lab_is_told() -> None:
    made = scores()["made"]
    older = {**made, "sampling": {**made["sampling"], "guidance_scale": 4.5}}
    text = card(scores=scores(made=older), lab={"summary": "Best of 24 settings: guidance 3."})
    assert "were changed after these scores were taken" in text
    assert "chosen by measure: Best of 24 settings: guidance 3." in text


def test_each_class_and_real_pictures_under_the_same_eye() -> None:
    each = {"sea": estimate(0.9, 0.05), "forest": estimate(0.5, 0.05)}
    classes = {"right": estimate(0.7, 0.1), "ceiling": estimate(0.9, 0.1), "real": estimate(0.95, 0.05), "chance": 0.5}
    classes["among_real"] = estimate(0.6, 0.1)
    fidelity = {"captions": None, "held_out_captions": None, "classes": {**classes, "by_class": each}}
    told = (
        "By class: sea 90 [85, 95]; forest 50 [45, 55] %. Beside real pictures as they are, and not as the autoencoder "
    )
    told += "gives them back: 60 [50, 70] % of the samples, 95 [90, 100] % of held-out real pictures."
    assert told in card(scores=scores(fidelity=fidelity))
    many = {f"class {k}": estimate(0.5) for k in range(13)}
    text = card(scores=scores(fidelity={**fidelity, "classes": {**classes, "by_class": many, "real": None}}))
    assert "By class" not in text
    assert "Of held-out real" not in text


def test_numbers_have_the_digits_that_their_interval_can_tell_apart() -> None:
    for value, low, high, said in (
        (0.0000305, -0.00737, 0.0122, "0.000 [-0.007, 0.012]"),
        (0.16132, 0.1344, 0.1931, "0.161 [0.134, 0.193]"),
        (242.61, 227.8, 257.4, "243 [228, 257]"),
        (-0.001, -0.9, 0.9, "0.0 [-0.9, 0.9]"),
        (0.5, 0.5, 0.5, "0.5 [0.5, 0.5]"),
    ):
        found = {**distances(1), "frechet": {"value": value, "low": low, "high": high}}
        text = card(scores=scores(distances={"samples": found, "ceiling": None, "floor": None}))
        assert f"| Fréchet distance | {said} |" in text
