"""The registry."""

import dataclasses
import inspect
import typing

import pytest

from calotype import sampling
from calotype.core.errors import UserError
from calotype.sampling import SAMPLERS, get_sampler
from calotype.sampling.samplers import Sampler


def test_the_table_of_samplers() -> None:
    """Name, step, whether it draws noise, its grid (None: the process's own), usual steps, passes per step."""
    assert [dataclasses.astuple(sampler) for sampler in SAMPLERS.values()] == [
        ("ddpm", sampling.ddpm_step, True, None, 250, 1),
        ("ddim", sampling.ddim_step, False, None, 50, 1),
        ("alpha", sampling.alpha_step, False, "cube_root", 70, 1),
        ("euler", sampling.euler_step, False, None, 50, 1),
        ("dpm++2m", sampling.dpmpp_2m_step, False, None, 20, 1),
        ("dpm++2m-sde", sampling.dpmpp_2m_sde_step, True, None, 30, 1),
        ("heun", sampling.heun_step, False, "log_snr", 20, 2),
    ]
    assert all(get_sampler(name) is sampler for name, sampler in SAMPLERS.items())
    assert all(sampler.name == name for name, sampler in SAMPLERS.items())


def test_a_sampler_cannot_be_altered() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLERS["ddim"].num_steps = 3  # type: ignore[misc]


def test_passes_of_a_run() -> None:
    assert [SAMPLERS[name].network_passes(k) for name, k in (("ddim", 7), ("heun", 7), ("heun", 1))] == [7, 13, 1]
    assert Sampler("mine", sampling.ddim_step, False, passes=3).network_passes(3) == 7


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^unknown sampler 'dpmpp2m': did you mean 'dpm\+\+2m'\?$"):
        get_sampler("dpmpp2m")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_can_be_called_alike(name: str) -> None:
    """A step takes what `Step` says, and only what it may lack has a default."""
    parameters = inspect.signature(SAMPLERS[name].step).parameters
    assert list(parameters)[:8] == ["denoiser", "process", "x_t", "t", "t_next", "cond", "noise", "memory"]
    assert [p.default for p in list(parameters.values())[:8]] == [inspect.Parameter.empty] * 5 + [None] * 3
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[5:])
    assert typing.get_type_hints(SAMPLERS[name].step)["return"]


def test_everything_public_is_exported() -> None:
    assert {sampler.step.__name__ for sampler in SAMPLERS.values()} <= set(sampling.__all__)  # type: ignore[attr-defined]
    assert all(hasattr(sampling, name) for name in sampling.__all__)
