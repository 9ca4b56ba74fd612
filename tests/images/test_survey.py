"""Figures of a set whose contents are known."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.images.dataset import prepare
from calotype.images.settings import PictureConfig
from calotype.images.source import Picture, Source
from calotype.images.survey import survey
from tests.images.making import Heard, encoded, noise_png


def shade(colour: tuple[int, int, int]) -> bytes:
    return encoded(Image.new("RGB", (16, 16), colour))


def dotted() -> bytes:
    image = Image.new("RGB", (16, 16), (90, 90, 90))
    image.paste((220, 40, 40), (6, 6, 9, 9))
    return encoded(image)


def grey_noise(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return encoded(Image.fromarray(values))


CONTENTS = {
    "n1": noise_png(1),
    "dotted": dotted(),
    "g1": grey_noise(1),
    "black": shade((2, 3, 2)),
    "white": shade((253, 255, 255)),
    "blue": shade((20, 40, 200)),
    "copy": noise_png(1),
    "bad": b"x",
    "worse": noise_png(3)[:70],
    "worst": noise_png(4)[:80],
}
CAPTIONS = ["a red fox", "a red fox", "the fox and a dog", None, "dog " * 200, "a cow", "a red fox", "x", "x", "x"]
LABELS = ["fox", "fox", "fox", "dog", "dog", None, "fox", "cow", "cow", "cow"]


def source() -> Source:
    pictures = [
        Picture(name, lambda content=content: content, caption, label)  # type: ignore[misc]
        for (name, content), caption, label in zip(CONTENTS.items(), CAPTIONS, LABELS, strict=True)
    ]
    return Source("odd ones", pictures, attribution="me", licence="CC0")


def test_figures(tmp_path: Path) -> None:
    pictures = prepare(source(), 16, tmp_path, Heard(), PictureConfig(max_refused=1))
    found = survey(pictures, tmp_path)
    assert found["files"] == {"all": 10, "readable": 7, "refused": 3}
    assert (found["pictures"], found["size"], found["licence"]) == (7, 16, "CC0")
    assert [(group["count"], group["example"]) for group in found["refused"]] == [(2, "worse"), (1, "bad")]
    assert found["copies"] == {"equal": 1, "near": 0, "dropped": 0, "across_split": 0, "examples": [["copy", "n1"]]}
    assert found["classes"] == {"count": 2, "unlabelled": 1, "pictures": {"fox": 4, "dog": 2}}
    assert list(found["classes"]["pictures"]) == ["fox", "dog"]
    captions = found["captions"]
    assert (captions["count"], captions["missing"], captions["distinct"], captions["too_long"]) == (6, 1, 4, 1)
    assert (captions["words_median"], captions["words_max"]) == (3, 200)
    assert captions["most_frequent"] == ["a red fox", 3]
    assert captions["frequent_words"] == {"fox": 4, "red": 3, "dog": 2, "cow": 1}
    colour = found["colour"]
    assert {kind: colour[kind] for kind in ("grey", "dark", "light", "flat")} == {
        "grey": 3,
        "dark": 1,
        "light": 1,
        "flat": 3,
    }
    assert colour["examples"]["flat"] == ["black", "white", "blue"]
    assert found["split"] == {"train": len(pictures.train_ids), "held_out": len(pictures.held_out_ids)}
    assert found["mirrored"] == {"yes": True, "reason": ""}


def test_colour_is_that_of_all_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pictures than are looked at at a time, against the whole at once."""
    monkeypatch.setattr("calotype.images.survey._CHUNK", 7 * 3 * 16 * 16)
    contents = [noise_png(seed) if seed % 3 else shade((seed, 7, 90)) for seed in range(30)]
    pictures = prepare(
        Source("x", [Picture(str(row), lambda row=row: contents[row]) for row in range(30)]),  # type: ignore[misc]
        16,
        tmp_path,
        Heard(),
    )
    colour = survey(pictures, tmp_path)["colour"]
    whole = pictures.pixels.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    assert np.allclose(colour["mean"], whole.mean(axis=1), atol=0.051)
    assert np.allclose(colour["std"], whole.std(axis=1), atol=0.051)
    assert (colour["flat"], colour["examples"]["flat"]) == (10, ["0", "3", "6", "9", "12"])


def test_without_captions_or_classes(tmp_path: Path) -> None:
    bare = Source("x", [Picture(str(seed), lambda seed=seed: noise_png(seed)) for seed in range(3)])  # type: ignore[misc]
    found = survey(prepare(bare, 16, tmp_path, Heard()), tmp_path)
    assert found["captions"] == {"count": 0, "missing": 3}
    assert found["classes"] == {"count": 0, "unlabelled": 3, "pictures": {}}


def test_large_pictures_are_looked_at_a_few_at_a_time(tmp_path: Path) -> None:
    """Forty of 512 px are 126 MB as floats."""
    bare = Source("x", [Picture(str(seed), lambda seed=seed: shade((seed, 9, 9))) for seed in range(40)])  # type: ignore[misc]
    pictures = prepare(bare, 512, tmp_path, Heard())
    tracemalloc.start()
    found = survey(pictures, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["colour"]["flat"] == 40
    assert peak < 80 * 2**20
