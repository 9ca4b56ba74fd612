"""Recipes are plain, strict values that survive being written down."""

from __future__ import annotations

import pytest
import yaml

from calotype.core.errors import UserError
from calotype.process import VariancePreserving
from calotype.recipes import Recipe, get_recipe


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


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'calotype'"):
        get_recipe("calotyp", 64)
