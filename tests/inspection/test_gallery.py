"""The right pictures, beside the right pictures."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.inspection import gallery
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving
from tests.inspection.fake_run import FakeModel, flat_picture, make_pictures

WORDS = [f"thing {k}" for k in range(40)]


def picture_in(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(b64decode(content)))


def test_small_pictures_are_embedded_without_loss() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(picture_in(gallery.data_uri(Image.fromarray(pixels)))), pixels)


def test_large_pictures_are_embedded_small() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 300, 3), dtype=np.uint8)
    uri = gallery.data_uri(Image.fromarray(pixels))
    assert picture_in(uri).size == (96, 192)
    assert len(uri) < 60_000


def test_the_wanted_prompts_are_shown_in_their_order_and_only_from_training(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, WORDS)
    assert [pictures.captions[i] for i in gallery.showcase_ids(pictures, ["thing 9", "thing 2"], 2)] == [
        "thing 9",
        "thing 2",
    ]
    chosen = gallery.showcase_ids(pictures, ["a stranger"], 8)
    assert len({pictures.captions[i] for i in chosen}) == 8
    assert not pictures.held_out[chosen].any()


def test_held_out_captions_that_training_never_saw_come_first(tmp_path: Path) -> None:
    unseen, flag = gallery.held_out_ids(make_pictures(tmp_path / "a", WORDS), 6)
    assert flag
    assert len(unseen) == 6
    pictures = make_pictures(tmp_path / "b", ["the sea", "a forest"] * 20)
    ids, flag = gallery.held_out_ids(pictures, 6)
    assert not flag
    assert len(ids) == len({pictures.captions[i] for i in ids})
    assert pictures.held_out[ids].all()


def test_every_label_has_its_turn(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [None] * 40, ["a"] * 30 + ["b"] * 6 + ["c"] * 4)
    chosen = gallery.spread(pictures, range(40), 9)
    labels = [pictures.labels[i] for i in chosen]
    assert [labels.count(name) for name in "abc"] == [3, 3, 3]
    assert len(set(chosen)) == 9


def test_a_pair_is_the_sample_of_a_caption_beside_the_picture_that_bears_it(tmp_path: Path) -> None:
    pictures, model = make_pictures(tmp_path, WORDS), FakeModel(captioned=True)
    pairs = gallery.prompted_pairs(model, pictures, [4, 8], seed=50)
    assert model.calls[0]["prompts"] == ["thing 4", "thing 8"]
    for k, (made, real) in enumerate(pairs):
        assert np.array_equal(np.asarray(picture_in(made.uri)), np.asarray(flat_picture(50 + k)))
        expected = pictures.pixels[4 + 4 * k].permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(picture_in(real.uri)), expected)
        assert f"seed {50 + k}" in made.alt


def test_reconstructions_carry_their_own_psnr(tmp_path: Path) -> None:
    """A picture equal to its block means comes back whole; noise does not."""
    pictures, model = make_pictures(tmp_path, [None] * 8), FakeModel()
    pictures.pixels[0] = 77
    exact, noisy = gallery.reconstruction_pairs(model, pictures, [0, 1])
    assert float(exact[0].caption.split()[0]) > 100
    kept = torch.nn.functional.avg_pool2d(gallery.to_float(pictures.pixels[1:2]), 4)
    error = (torch.nn.functional.interpolate(kept, scale_factor=4.0) - gallery.to_float(pictures.pixels[1:2])).square()
    assert float(noisy[0].caption.split()[0]) == pytest.approx(float(10 * torch.log10(4 / error.mean())), abs=0.06)


@pytest.mark.parametrize(
    "process",
    [VariancePreserving.linear(), VariancePreserving.cosine(), VariancePreserving.angle(), RectifiedFlow()],
    ids=["linear", "cosine", "angle", "flow"],
)
def test_noise_levels_rise_from_clean_to_the_noisiest_in_even_angles(process: object) -> None:
    levels = gallery.noise_levels(process, 9)
    assert levels[0] == 0
    assert levels[-1] == process.t_max  # type: ignore[attr-defined]
    angles = torch.atan2(process.noise_rate(levels[1:]), process.signal_rate(levels[1:]))  # type: ignore[attr-defined]
    gaps = angles.diff(prepend=torch.zeros(1))
    assert (gaps - gaps.mean()).abs().max() < 0.02


def test_an_exploding_process_has_rising_levels_too() -> None:
    assert (gallery.noise_levels(VarianceExploding(), 9).diff() > 0).all()


def test_the_forward_strip_begins_with_the_picture_and_names_its_rates(tmp_path: Path) -> None:
    pictures, model = make_pictures(tmp_path, [None] * 8), FakeModel()
    pictures.pixels[0] = 77
    strip = gallery.forward_strip(model, pictures.pixels[0], seed=0)
    assert (np.asarray(picture_in(strip[0].uri)) == 77).all()
    assert [strip[0].caption, strip[4].caption, strip[-1].caption] == ["1.00, 0.00", "0.71, 0.71", "0.00, 1.00"]


def test_denoising_strips_begin_with_the_first_step_and_end_with_the_last() -> None:
    rows = gallery.denoising_strips(FakeModel(captioned=True), ["a", "b", "c"], {"seed": 0})
    assert list(rows) == ["x_t", "x0_hat 0", "x0_hat 1", "x0_hat 2"]
    assert all(len(row) == gallery.STRIP_FRAMES for row in rows.values())
    assert [rows["x_t"][0].caption, rows["x_t"][-1].caption] == ["step 1", f"step {gallery.NUM_STEPS}"]
    assert (np.asarray(picture_in(rows["x0_hat 1"][-1].uri)) == 255).all()
