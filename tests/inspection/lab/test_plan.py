"""Which settings are tried: axes around the best so far, or a grid that was given."""

from __future__ import annotations

import pytest

from calotype.core.errors import UserError
from calotype.inspection.lab.plan import axes, given
from calotype.inspection.lab.setting import OWN, Setting
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.recipes import SamplingSection
from calotype.sampling import get_sampler

DEFAULT = Setting(OWN, SamplingSection())
PROCESSES = [
    VariancePreserving.cosine(),
    VariancePreserving.linear(),
    VariancePreserving.angle(),
    RectifiedFlow(),
    VarianceExploding(),
]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_every_point_is_one_that_can_be_drawn_and_lies_on_its_axis(process: VariancePreserving) -> None:
    found = dict(axes(process, asked=True, weights=["0.05", "live"]))
    for name, points in found.items():
        settings = points(DEFAULT, [DEFAULT])
        assert settings, name
        changed = {key for setting in settings for key in setting.differences(DEFAULT)}
        assert (
            changed
            <= {
                "guidance": {"guidance_scale"},
                "average": {"weights"},
                "interval": {"guidance_interval", "guidance_scale"},
                "threshold": {"threshold"},
                "sampler": {"sampler", "num_steps"},
                "steps": {"num_steps"},
                "guidance again": {"guidance_scale"},
            }[name]
        )
        for setting in settings:
            low, high = setting.sampling.guidance_interval or (0, process.t_max)
            assert 0 <= low < high <= process.t_max


def test_two_dozen_points_are_enough_for_all_axes() -> None:
    best, tried = DEFAULT, {DEFAULT}
    for _, points in axes(PROCESSES[0], asked=True, weights=["0.05", "0.1", "0.15", "live"]):
        tried |= set(points(best, sorted(tried, key=str)))
    assert 20 <= len(tried) <= 28


def test_a_model_that_is_asked_for_nothing_is_not_guided() -> None:
    names = [name for name, _ in axes(PROCESSES[0], asked=False, weights=["0.05"])]
    assert names == ["average", "threshold", "sampler", "steps"]


def test_samplers_get_about_as_many_passes() -> None:
    points = dict(axes(PROCESSES[0], asked=True, weights=[]))["sampler"](DEFAULT, [DEFAULT])
    passes = {s.sampling.sampler: get_sampler(s.sampling.sampler).network_passes(s.sampling.num_steps) for s in points}
    assert "dpm++2m" not in passes
    assert all(18 <= count <= 21 for count in passes.values())
    heun = DEFAULT.but(sampler="heun", num_steps=10)
    back = dict(axes(PROCESSES[0], asked=True, weights=[]))["sampler"](heun, [heun])
    assert {s.sampling.num_steps for s in back} == {20}


def test_guidance_again_goes_half_way_and_beyond_the_end() -> None:
    closer = dict(axes(PROCESSES[0], asked=True, weights=[]))["guidance again"]

    def scales(best: float, *others: float) -> list[float]:
        tried = [DEFAULT.but(guidance_scale=other) for other in (best, *others)]
        return [s.sampling.guidance_scale for s in closer(tried[0], tried)]

    assert scales(2, 1.5, 3) == [1.75, 2.5]
    assert scales(6, 4.5) == [5.25, 8]
    assert scales(1, 1.5) == [1.25]


def test_a_grid_is_every_combination() -> None:
    points = given(["guidance_scale=[1, 2]", "weights=[own, 0.10]", "sampler=heun"], DEFAULT)
    assert len(points) == 4
    assert {(p.weights, p.sampling.guidance_scale, p.sampling.sampler) for p in points} == {
        (weights, scale, "heun") for weights in ("own", "0.1") for scale in (1, 2)
    }


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (["guidance_scale"], "'guidance_scale' is not a list of values: write guidance_scale=.1, 2, 3."),
        (["guidance_scale="], "is not a list of values"),
        (["guidance_scale=[1, 2"], "is not a list of values"),
        (["guidence_scale=[1]"], "unknown setting 'guidence_scale': did you mean 'guidance_scale'"),
        (["sampler=[hein]"], "unknown sampler 'hein': did you mean 'heun'"),
        (["num_steps=[0]"], "num_steps"),
        ([f"num_steps={list(range(1, 30))}", f"guidance_scale={list(range(30))}"], "more than 400 combinations"),
    ],
)
def test_what_is_no_grid_is_one_line(lists: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        given(lists, DEFAULT)


def test_words_tell_what_differs() -> None:
    changed = DEFAULT.but(weights="0.05", guidance_scale=1.5, guidance_interval=(10.0, 800.0), threshold="dynamic")
    said = "average of width 0.05, guidance 1.5, guided from t 10 to 800, dynamic threshold"
    assert changed.words(DEFAULT) == said
    assert DEFAULT.words(DEFAULT) == "as it is"
    assert (
        DEFAULT.but(weights="live", sampler="heun", num_steps=10).words(DEFAULT)
        == "weights not averaged, heun, 10 steps"
    )


def test_keys_tell_results_apart() -> None:
    assert DEFAULT.key(weights="a") == DEFAULT.but(weights="0.05").key(weights="a")  # the digest is what counts
    keys = {DEFAULT.key(weights="a"), DEFAULT.key(weights="b"), DEFAULT.but(num_steps=21).key(weights="a")}
    assert len(keys) == 3
