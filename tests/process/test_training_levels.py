"""Training levels: inside the range, all of it reached, with the densities' own quantiles."""

import math

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving, sample_t
from tests.process.families import FAMILIES

U = (torch.arange(10000) + 0.5) / 10000


@pytest.mark.parametrize("density", [None, "uniform", "logit-normal", "log-normal", "folded-normal"])
@pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
def test_levels_stay_inside_the_range_and_rise_with_u(process: Process, density: None) -> None:
    t = sample_t(process, U, density)
    assert t.shape == U.shape
    assert bool((t.diff() >= 0).all())
    assert process.t_min <= float(t[0])
    assert float(t[-1]) <= process.t_max
    assert t.dtype == (torch.float64 if process.num_train_steps is None else torch.int64)
    process.log_snr(sample_t(process, torch.tensor([1e-7, 1 - 2**-24]), density))


def test_tables_are_visited_evenly_from_first_to_last() -> None:
    t = sample_t(VariancePreserving.linear(), U)
    assert torch.equal(torch.bincount(t), torch.cat([torch.zeros(1, dtype=torch.int64), torch.full((1000,), 10)]))


def test_continuous_levels_reach_both_ends() -> None:
    process = VariancePreserving.angle()
    t = sample_t(process, U)
    assert float(t[0]) == pytest.approx(process.t_min, abs=1e-4)
    assert float(t[-1]) == pytest.approx(process.t_max, abs=1e-4)
    assert float(t.mean()) == pytest.approx((process.t_min + process.t_max) / 2, abs=1e-4)


def test_quantiles_of_the_densities() -> None:
    one_sigma = torch.tensor([0.15865525, 0.5, 0.84134475], dtype=torch.float64)
    sigma = sample_t(VarianceExploding(), one_sigma)
    torch.testing.assert_close(sigma.log(), torch.tensor([-2.4, -1.2, 0.0], dtype=torch.float64), rtol=0, atol=1e-6)
    t = sample_t(RectifiedFlow(), one_sigma, "logit-normal", loc=1.0, scale=0.5)
    expected = 0.001 + 0.999 * torch.sigmoid(torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
    torch.testing.assert_close(t, expected, rtol=0, atol=1e-6)
    # Median of |n| is .6744898; a scale of .2 leaves next to nothing above 1.
    folded = sample_t(VariancePreserving.angle(), torch.tensor([0.5]), "folded-normal", scale=0.2)
    assert float(folded) == pytest.approx(0.2 * 0.6744898, abs=1e-5)


def test_the_same_density_is_the_same_noise_for_every_family() -> None:
    u = torch.linspace(0.05, 0.95, 19)
    sigmas = []
    for process in (RectifiedFlow(), VariancePreserving.angle(), VarianceExploding()):
        sigmas.append(-process.log_snr(sample_t(process, u, "log-normal")))
    torch.testing.assert_close(sigmas[0], sigmas[1])
    torch.testing.assert_close(sigmas[0], sigmas[2])
    assert float(sigmas[0].median()) == pytest.approx(-1.2, abs=1e-6)
    assert math.isfinite(float(sigmas[0].sum()))


def test_an_unknown_density_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'log-normal'"):
        sample_t(RectifiedFlow(), U, "lognormal")  # type: ignore[arg-type]
