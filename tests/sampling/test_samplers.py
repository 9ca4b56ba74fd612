"""The registry."""

import pytest

from calotype.core.errors import UserError
from calotype.sampling import SAMPLERS, dpmpp_2m_step, get_sampler


def test_known_names() -> None:
    assert {"ddpm", "ddim", "dpm++2m", "heun"} <= set(SAMPLERS)
    assert all(sampler.name == name for name, sampler in SAMPLERS.items())
    assert get_sampler("dpm++2m").step is dpmpp_2m_step


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown sampler 'dpmpp2m': did you mean 'dpm\+\+2m'"):
        get_sampler("dpmpp2m")
