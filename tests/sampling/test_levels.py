"""What every step reads."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.process import RectifiedFlow, VariancePreserving
from calotype.sampling import levels
from calotype.sampling.levels import Level, decay, estimate, fresh, from_to, level


def test_rates_of_a_level() -> None:
    found = level(RectifiedFlow(), 0.25)
    assert found == Level(0.75, 0.25, pytest.approx(math.log(3)))
    assert level(RectifiedFlow(), torch.tensor(0.0)) == Level(1, 0, math.inf)
    assert level(RectifiedFlow(), torch.tensor(1)) == Level(0, 1, -math.inf)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.a = 1.0  # type: ignore[misc]


def test_a_step_goes_to_less_noise() -> None:
    now, then = from_to(RectifiedFlow(), 0.5, 0.25)
    assert (now.b, then.b) == (0.5, 0.25)
    for t_next in (0.5, 0.75):
        with pytest.raises(ValueError, match=f"less noise: t_next {t_next:g} is not below t 0.5$"):
            from_to(RectifiedFlow(), torch.tensor(0.5), t_next)


def test_decay_is_e_to_minus_the_step_in_log_snr() -> None:
    now, then = from_to(VariancePreserving.cosine(), 700, 300)
    assert decay(now, then) == pytest.approx(math.exp(now.log_snr - then.log_snr), rel=1e-12)
    assert decay(*from_to(RectifiedFlow(), 0.5, 0)) == 0
    assert decay(*from_to(RectifiedFlow(), 1, 0.5)) == 0


def test_every_row_is_told_the_level_in_double_precision() -> None:
    def denoiser(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert cond == "y"
        assert torch.equal(t, torch.tensor([1 / 3] * 4, dtype=torch.float64))
        return x_t + 1

    assert torch.equal(estimate(denoiser, torch.zeros(4, 2), 1 / 3, "y"), torch.ones(4, 2))


def test_devices_without_double_precision_are_told_in_single(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels.DEVICES_WITHOUT_FLOAT64 == ("mps",)
    monkeypatch.setattr(levels, "DEVICES_WITHOUT_FLOAT64", ("meta",))
    seen = []
    estimate(lambda x_t, t, cond: seen.append(t) or x_t, torch.zeros(3, 2, device="meta"), 0.5, None)
    assert (seen[0].dtype, seen[0].device.type, seen[0].shape) == (torch.float32, "meta", (3,))


def test_noise_is_handed_on_or_missed() -> None:
    noise = torch.randn(2, 3)
    assert fresh(noise, torch.zeros(2, 3)) is noise
    with pytest.raises(ValueError, match="this step is stochastic: give noise"):
        fresh(None, torch.zeros(2, 3))
    for columns in (2, 4):
        with pytest.raises(ValueError, match=rf"^noise has shape \(2, 3\), x_t \(2, {columns}\)$"):
            fresh(noise, torch.zeros(2, columns))
