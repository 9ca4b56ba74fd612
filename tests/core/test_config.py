"""Strict configs: what is misspelt is named, with the nearest known key; what is wrong is one line."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from calotype.core.config import Config
from calotype.core.errors import UserError, nearest


class Training(Config):
    batch_size: int = Field(default=64, gt=0)
    lr: float = 2e-3


class Recipe(Config):
    size: int = 64
    channels: tuple[int, ...] = (64, 128)
    training: Training = Training()


def test_values_survive_the_round_trip() -> None:
    recipe = Recipe(size=32, channels=(8,), training=Training(batch_size=2))
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


class Round(Config):
    family: Literal["round"] = "round"
    radius: float = 1.0


class Square(Config):
    family: Literal["square"] = "square"
    side: float = 1.0


class Drawing(Config):
    shape: Annotated[Round | Square, Field(discriminator="family")] = Round()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"family": "square", "sid": 2}, "config: unknown key 'shape.sid': did you mean 'shape.side'?"),
        ({"family": "squar"}, "config: shape: unknown value 'squar': did you mean 'square'?"),
        ({"family": "round", "radius": "x"}, "config: shape.radius: "),
        ({"radius": 2.0}, "config: shape: it has no key 'family'"),
    ],
)
def test_a_union_is_spoken_of_as_it_is_written(shape: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        Drawing.parse({"shape": shape})
    assert str(error.value).startswith(said)
    assert "Round" not in str(error.value)
    assert "Square" not in str(error.value)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "key", "near"),
    [
        ({"sise": 32}, "sise", "size"),
        ({"training": {"batch_sise": 32}}, "training.batch_sise", "training.batch_size"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(values: dict, key: str, near: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.parse(values, where="config.yaml")
    assert str(error.value) == f"config.yaml: unknown key '{key}': did you mean '{near}'?"


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("training.batchsize=3", "training.batch_size"),
        ("trainin.lr=3", "training.lr"),
        ("training.lr.x=3", "training.lr"),
        ("sizes=3", "size"),
    ],
)
def test_an_unknown_assignment_is_named_with_the_nearest(assignment: str, near: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe().with_overrides([assignment])
    key = assignment.partition("=")[0]
    assert key in error.value.what
    assert str(error.value).count("\n") == 0
    if key != "training.lr.x":
        assert f"did you mean '{near}'?" in str(error.value)


def test_assignments_are_typed_and_in_order() -> None:
    given = ["training.batch_size=8", "training.lr=1e-4", "channels=[1, 2, 3]", "training.batch_size=16"]
    recipe = Recipe().with_overrides(given)
    assert recipe == Recipe(channels=(1, 2, 3), training=Training(batch_size=16, lr=1e-4))
    assert Recipe().with_overrides([]) == Recipe()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("training.batch_size=0", "training.batch_size"),
        ("training.batch_size=many", "many"),
        ("training=3", "training"),
        ("size", "no '='"),
        ("size={", "size"),
        ("size=", "size"),
    ],
)
def test_a_wrong_value_is_one_line(assignment: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe().with_overrides([assignment])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nearest_names_all_when_none_is_near() -> None:
    assert nearest("ddpmm", ["ddim", "ddpm", "heun"]) == "did you mean 'ddpm'?"
    assert nearest("zzz", ["heun", "ddim"]) == "choose from ddim, heun"


def test_a_user_error_is_one_sentence_with_its_mend() -> None:
    assert str(UserError("no folder at x", "check the path")) == "no folder at x: check the path"
    assert str(UserError("no folder at x")) == "no folder at x"
