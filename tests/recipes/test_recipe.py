"""Recipes are plain, strict values that survive being written down."""

from __future__ import annotations

import pytest
import torch
import yaml

from calotype.core.errors import UserError
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.recipes import Recipe, get_recipe
from calotype.training.adversarial import PatchDiscriminator


@pytest.mark.parametrize("size", [64, 128])
def test_a_recipe_survives_yaml(size: int) -> None:
    recipe = get_recipe("calotype", size)
    assert Recipe.parse(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))) == recipe
    assert recipe.vae.network.downsampling == 8
    assert recipe.size == size


def test_overrides_change_one_value_and_are_checked() -> None:
    recipe = get_recipe("calotype", 64)
    changed = recipe.with_overrides(["training.batch_size=16", "vae.loss.l1_weight=0", "network.channels=[8, 16]"])
    assert changed.training.batch_size == 16
    assert changed.vae.loss.l1_weight == 0
    assert changed.network.channels == (8, 16)
    assert changed.vae.training == recipe.vae.training
    for wrong in ("training.batch_size=0", "training.batch_size=many", "vae.share=1.5", "process.schedule=cosin"):
        with pytest.raises(UserError, match=wrong.partition("=")[0]):
            recipe.with_overrides([wrong])
    with pytest.raises(UserError, match=r"did you mean 'vae\.steps'"):
        recipe.with_overrides(["vae.step=3"])


def test_the_process_is_built_from_the_recipe() -> None:
    recipe = get_recipe("calotype", 64)
    assert recipe.process.build() == VariancePreserving.cosine(num_train_steps=1000)
    linear = recipe.with_overrides(["process.schedule=linear"])
    assert linear.process.build() == VariancePreserving.linear(num_train_steps=1000)


def test_settings_that_cannot_work_are_refused_before_training() -> None:
    recipe = get_recipe("calotype", 64)
    for overrides, line in {
        ("process.schedule=linear", "process.num_train_steps=200"): r"signal_rate 0\.36.*at most 0\.1",
        ("process.schedule=rectified-flow", "loss.parameterization=eps"): "eps-prediction cannot give x0 at t = 1",
        ("process.schedule=angle", "process.beta_end=0.02"): "unknown key 'beta_end'",
        ("loss.weighting=elbo", "loss.density=logit-normal"): "uniform levels",
        ("process.schedule=cosin",): r"process\.schedule: unknown value 'cosin': did you mean 'cosine'",
        ("process.schedule=variance-exploding",): "parameterization=edm",
        ("loss.parameterization=epz",): "did you mean 'eps'",
        ("loss.density=unifrom",): "did you mean 'uniform'",
        ("loss.density=uniform", "loss.density_scale=2"): "uniform",
        ("loss.weighting=min_snr",): "did you mean 'min-snr'",
        ("loss.distance=huger",): "did you mean 'huber'",
        ("sampling.sampler=dpm++3m",): r"unknown sampler 'dpm\+\+3m': did you mean 'dpm\+\+2m'",
        ("sampling.grid=cuberoot",): "did you mean 'cube_root'",
        ("sampling.num_steps=0",): r"sampling\.num_steps",
    }.items():
        with pytest.raises(UserError, match=line):
            recipe.with_overrides(list(overrides))


@pytest.mark.parametrize(
    ("schedule", "process"),
    {
        "scaled-linear": VariancePreserving.scaled_linear(),
        "angle": VariancePreserving.angle(),
        "rectified-flow": RectifiedFlow(),
        "variance-exploding": VarianceExploding(),
    }.items(),
)
def test_every_family_can_be_asked_for(schedule: str, process: Process) -> None:
    changes = [f"process.schedule={schedule}", "loss.parameterization=edm"]
    assert get_recipe("calotype", 64).with_overrides(changes).process.build() == process


def test_the_first_walkthrough_is_a_recipe() -> None:
    recipe = get_recipe("ddpm-64", 64)
    assert recipe.process.build() == VariancePreserving.linear(1000, 1e-4, 0.02)
    assert (recipe.loss.parameterization, recipe.loss.distance, recipe.loss.weighting) == ("eps", "l2", "constant")
    assert (recipe.condition, recipe.sampling.sampler, recipe.sampling.num_steps) == ("none", "ddpm", 1000)
    assert (recipe.vae.network.downsampling, recipe.vae.network.latent_channels) == (8, 4)


def test_the_second_walkthrough_is_a_recipe() -> None:
    recipe = get_recipe("text-128", 128)
    assert recipe.process.build() == VariancePreserving.angle()
    assert recipe.process.build().t_max >= 0.995
    assert (recipe.loss.parameterization, recipe.loss.distance, recipe.loss.condition_dropout) == ("x0", "l1", 0.15)
    assert recipe.network.channels == (128, 256, 512)
    assert (recipe.network.map_kind, recipe.network.map_channels) == ("tiled", 256)
    sampling = recipe.sampling
    assert (sampling.sampler, sampling.num_steps, sampling.guidance_scale) == ("alpha", 70, 4.0)
    assert (sampling.threshold, sampling.percentile) == ("dynamic", 99.5)


def test_a_discriminator_needs_pictures_large_enough_to_judge() -> None:
    assert [get_recipe("calotype", size).vae.loss.adversarial_weight for size in (8, 16, 64)] == [0, 0.5, 0.5]
    asked = ["vae.loss.adversarial_weight=0.1"]
    assert get_recipe("calotype", 16).with_overrides(asked).vae.loss.adversarial_weight == 0.1
    PatchDiscriminator()(torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match="cannot judge pictures of 8 pixels"):
        get_recipe("calotype", 8).with_overrides(asked)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'calotype'"):
        get_recipe("calotyp", 64)


@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        (["loss.density=null"], (None, None)),
        (["loss.density=uniform"], ("uniform", None)),
        (["loss.density=logit-normal", "loss.density_loc=0.5"], ("logit-normal", 0.5)),
        (["process.schedule=rectified-flow"], (None, None)),
        (["process.schedule=variance-exploding", "loss.parameterization=edm"], (None, None)),
        (["seed=3"], ("logit-normal", -0.7)),
    ],
)
def test_another_process_or_density_visits_levels_as_suits_it(asked: list[str], levels: tuple[object, object]) -> None:
    loss = get_recipe("calotype", 64).with_overrides(asked).loss
    assert (loss.density, loss.density_loc) == levels
