"""What is asked of the model, and what it gives on the way."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path

import pytest
import torch
from PIL import Image

from calotype.core.progress import Silent
from calotype.images.pixels import to_float
from calotype.inspection.report import drawing, latent
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.recipes import SamplingSection
from tests.inspection.report.fake_run import FakeModel, make_pictures


def picture_in(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(uri.partition(";base64,")[2])))


def reds(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_the_model_draws_as_it_does_by_itself_and_a_picture_belongs_to_its_seed() -> None:
    model = FakeModel(captioned=True)
    drawn = drawing.draw(model, Silent(), prompts=["a", "b", "c"], seed=50)
    assert model.calls == [{"prompts": ["a", "b", "c"], "labels": None, "num_images": 1, "seed": 50}]
    assert reds(drawn.images) == [50, 51, 52]
    assert drawn.seeds == "seeds 50 to 52"
    assert drawn.steps == []


@pytest.mark.parametrize(("num_steps", "frames"), [(3, 3), (20, 20), (250, drawing.FILM_FRAMES)])
def test_a_film_goes_from_the_first_step_to_the_last(num_steps: int, frames: int) -> None:
    drawn = drawing.draw(FakeModel(num_steps=num_steps), Silent(), num_images=6, filmed=[1, 4])
    assert (drawn.steps[0], drawn.steps[-1], len(drawn.steps)) == (1, num_steps, frames)
    assert drawn.held.shape[:2] == (frames, 2)
    assert torch.equal(drawn.held[-1], drawn.images[[1, 4]])
    assert (drawn.held.diff(dim=0) >= -1e-6).all()  # it rises from black
    assert torch.equal(drawn.believed[0], drawn.images[1])


def test_the_small_print_says_what_the_pictures_depend_on() -> None:
    model = FakeModel()
    drawn = drawing.draw(model, Silent(), seed=3)
    assert drawing.how_drawn(model, drawn) == (
        "dpm++2m, 20 steps, guidance 2.5, averaged weights; seed 3, none chosen by hand."
    )
    odd = SamplingSection(sampler="heun", threshold="dynamic", guidance_interval=(0.2, 0.8))
    said = drawing.settings_in_words(odd, "live")
    assert said == "heun, 20 steps, guidance 3, guidance interval (0.2, 0.8), threshold dynamic, live weights"


def test_reconstructions_carry_their_own_psnr(tmp_path: Path) -> None:
    """A picture equal to its block means comes back whole; noise does not."""
    pictures, model = make_pictures(tmp_path, [None] * 8), FakeModel()
    pictures.pixels[0] = 77
    exact, noisy = latent.reconstruction_pairs(model, pictures, [0, 1])
    assert float(exact[0].caption.split()[0]) > 100
    kept = torch.nn.functional.avg_pool2d(to_float(pictures.pixels[1:2]), 4)
    error = (torch.nn.functional.interpolate(kept, scale_factor=4.0) - to_float(pictures.pixels[1:2])).square()
    assert float(noisy[0].caption.split()[0]) == pytest.approx(float(10 * torch.log10(4 / error.mean())), abs=0.06)


@pytest.mark.parametrize(
    "process",
    [VariancePreserving.linear(), VariancePreserving.cosine(), VariancePreserving.angle(), RectifiedFlow()],
    ids=["linear", "cosine", "angle", "flow"],
)
def test_noise_levels_rise_from_clean_to_the_noisiest_in_even_angles(process: object) -> None:
    levels = drawing.noise_levels(process, 9)
    assert levels[0] == 0
    assert levels[-1] == process.t_max  # type: ignore[attr-defined]
    angles = torch.atan2(process.noise_rate(levels[1:]), process.signal_rate(levels[1:]))  # type: ignore[attr-defined]
    gaps = angles.diff(prepend=torch.zeros(1))
    assert (gaps - gaps.mean()).abs().max() < 0.02


def test_an_exploding_process_has_rising_levels_too() -> None:
    assert (drawing.noise_levels(VarianceExploding(), 9).diff() > 0).all()


def test_the_way_into_noise_begins_with_the_picture_and_names_its_rates(tmp_path: Path) -> None:
    pictures, model = make_pictures(tmp_path, [None] * 8), FakeModel()
    pictures.pixels[0] = 77
    images, rates = drawing.drowned(model, pictures.pixels[0], seed=0)
    assert reds(images[:1]) == [77]
    assert [tuple(round(rate, 2) for rate in rates[k]) for k in (0, 4, -1)] == [(1, 0), (0.71, 0.71), (0, 1)]
    assert "0.71, 0.71" in latent.into_noise(model, pictures.pixels[0])
