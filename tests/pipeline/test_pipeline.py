"""A loaded model: what it draws depends on seed and request alone, and it refuses what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calotype.core.errors import UserError
from calotype.core.random import seeded_noise
from calotype.images.grid import read_settings, save_png
from calotype.network import Condition, NetworkDenoiser
from calotype.pipeline import Diffuser, Pipeline, Run, load


@pytest.fixture(scope="module")
def model(class_run: Run) -> Pipeline:
    return class_run.load("cpu")


def test_a_picture_is_the_same_alone_and_among_others(model: Pipeline) -> None:
    many = model.sample_tensor(labels=["disc", "stripe"], num_images=3, seed=5, num_steps=4)
    alone = model.sample_tensor(labels=["stripe"], seed=9, num_steps=4)
    assert many.shape == (6, 3, 32, 32)
    assert (many[4] - alone[0]).abs().max() < 1e-4
    assert (many[4] - many[5]).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++2m"])
def test_samplers_and_their_stream_agree(model: Pipeline, sampler: str) -> None:
    drawn = model.sample(labels=["disc"], seed=2, num_steps=5, sampler=sampler)
    frames = list(model.stream(labels=["disc"], seed=2, num_steps=5, sampler=sampler))
    assert [frame.step for frame in frames] == [1, 2, 3, 4, 5]
    assert frames[-1].t == 0
    assert frames[-1].images()[0].tobytes() == drawn[0].tobytes()
    assert frames[0].images()[0].tobytes() != drawn[0].tobytes()


@pytest.mark.parametrize(("sampler", "drawn"), [("dpm++2m", 1), ("ddim", 1), ("heun", 1), ("ddpm", 6)])
def test_noise_is_drawn_for_the_start_and_for_samplers_that_need_it(
    model: Pipeline, sampler: str, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(seeds: torch.Tensor, step: int, shape: tuple[int, ...]) -> torch.Tensor:
        asked.append(step)
        return seeded_noise(seeds, step, shape)

    monkeypatch.setattr("calotype.pipeline.pipeline.seeded_noise", counted)
    model.sample(labels=["disc"], num_steps=5, sampler=sampler)
    assert asked == list(range(drawn))


def test_every_picture_carries_its_settings(model: Pipeline, tmp_path: Path) -> None:
    first, second = model.sample(labels=["disc"], num_images=2, seed=7, num_steps=3, guidance_scale=2.0)
    assert first.info["calotype"]["seed"] == 7
    save_png(second, tmp_path / "a.png", second.info["calotype"])
    settings = read_settings(tmp_path / "a.png")
    assert settings["seed"] == 8
    assert settings["label"] == "disc"
    assert settings["prompt"] is None
    assert settings["guidance_scale"] == 2.0
    assert settings["sampler"] == "dpm++2m"


def test_refusals_say_what_to_do(model: Pipeline) -> None:
    with pytest.raises(UserError, match=r"no prompt.*choose --label from disc, stripe"):
        model.sample(["a red heart"])
    with pytest.raises(UserError, match="did you mean 'disc'"):
        model.sample(labels=["disk"])
    with pytest.raises(UserError, match="did you mean 'ddim'"):
        model.sample(sampler="dimm")
    with pytest.raises(UserError, match="at least 1"):
        model.sample(num_steps=0)
    with pytest.raises(UserError, match="no negative prompt"):
        model.sample(labels=["disc"], negative="blur")


def test_settings_of_one_call_are_checked_and_recorded(model: Pipeline) -> None:
    plain = model.sample(labels=["disc"], num_steps=4)[0]
    (bounded,) = model.sample(labels=["disc"], num_steps=4, settings={"threshold": "static", "guidance_rescale": 0.7})
    assert bounded.tobytes() != plain.tobytes()
    assert bounded.info["calotype"]["threshold"] == "static"
    for settings, line in (
        ({"treshold": "static"}, "did you mean 'threshold'"),
        ({"threshold": "dinamic"}, "did you mean 'dynamic'"),
        ({"guidance_interval": (-5, 10)}, r"-5"),
        ({"guidance_interval": (600, 10)}, r"600.*10"),
        ({"shift": 0.5}, "shift"),
    ):
        with pytest.raises(UserError, match=line):
            model.sample(labels=["disc"], settings=settings)


def test_another_sampler_brings_its_own_number_of_steps(model: Pipeline) -> None:
    assert len(list(model.stream(labels=["disc"]))) == 20
    assert len(list(model.stream(labels=["disc"], sampler="ddim"))) == 50
    assert len(list(model.stream(labels=["disc"], sampler="ddim", num_steps=3))) == 3


def test_a_weaker_model_guides_and_a_foreign_one_is_refused(model: Pipeline) -> None:
    weak = replace(model, denoiser=NetworkDenoiser(lambda x, time, cond: 0 * x, model.process, "v"))
    led = model.sample_tensor(labels=["disc"], num_steps=4, weak=weak, settings={"autoguidance_scale": 3.0})
    assert (led - model.sample_tensor(labels=["disc"], num_steps=4)).abs().max() > 1e-3
    same = model.sample_tensor(labels=["disc"], num_steps=4, weak=weak, settings={"autoguidance_scale": 1.0})
    torch.testing.assert_close(same, model.sample_tensor(labels=["disc"], num_steps=4))
    foreign = replace(model, classes=["disc"])
    with pytest.raises(UserError, match="same VAE"):
        model.sample(labels=["disc"], weak=foreign)


def test_encode_and_decode_are_the_codecs(model: Pipeline) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    x0 = model.encode(images)
    assert x0.shape == (2, 4, 4, 4)
    torch.testing.assert_close(model.decode(x0), model.codec.vae.decode(model.codec.vae.encode(images)[0]).clamp(-1, 1))


def test_the_walkthroughs_diffuser_draws_what_its_sampler_draws(model: Pipeline) -> None:
    from calotype.core.random import seeded_noise

    noise = seeded_noise(torch.tensor([3]), 0, model.codec.latent_shape)
    condition = Condition(torch.zeros(1, dtype=torch.bool), label=torch.tensor([0]))
    x0 = Diffuser(model.denoiser, class_guidance=2.0, diffusion_steps=6).reverse_diffusion(noise, condition)
    expected = model.sample_tensor(labels=["disc"], seed=3, num_steps=6, guidance_scale=2.0, sampler="alpha")
    torch.testing.assert_close(model.decode(x0), expected)


def test_bundle_round_trip_is_exact_and_damage_is_named(class_run: Run, model: Pipeline, tmp_path: Path) -> None:
    import json
    import shutil

    from calotype.pipeline.bundle import save_bundle

    save_bundle(model, tmp_path / "copy")
    again = load(tmp_path / "copy", "cpu")
    assert torch.equal(again.sample_tensor(labels=["disc"]), model.sample_tensor(labels=["disc"]))
    assert again.facts == model.facts
    hurt = tmp_path / "hurt"
    shutil.copytree(class_run.model, hurt)
    weights = hurt / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"denoiser\.safetensors"):
        load(hurt, "cpu")
    newer = tmp_path / "newer"
    shutil.copytree(class_run.model, newer)
    (newer / "manifest.json").unlink()
    description = json.loads((newer / "model.json").read_text())
    (newer / "model.json").write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(UserError, match="format 99"):
        load(newer, "cpu")


def test_unknown_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no model 'nothing'"):
        load("nothing", "cpu")
    with pytest.raises(UserError, match="not available"):
        load("nothing", "tpu9")
