"""Training levels: inside the range, all of it reached, with the densities' own quantiles."""

import inspect
import math
from statistics import NormalDist
from typing import get_args

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import (
    Density,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    check_density,
    sample_t,
)
from calotype.process.training_levels import QUANTILES
from tests.process.families import FAMILIES, close, float64, read

U = (torch.arange(10000) + 0.5) / 10000
DENSITIES: tuple[Density, ...] = get_args(Density)
QUARTILES = float64(0.25, 0.5, 0.75)
Q = NormalDist().inv_cdf(0.75)


def test_tables_are_visited_evenly_from_first_to_last() -> None:
    t = sample_t(VariancePreserving.linear(), U)
    assert torch.equal(torch.bincount(t), torch.cat([torch.zeros(1, dtype=torch.int64), torch.full((1000,), 10)]))
    table = VariancePreserving.linear(4, 0.1, 0.4)
    assert sample_t(table, float64(0, 0.2499, 0.25, 0.5, 0.75, 0.9999, 1)).tolist() == [1, 1, 2, 3, 4, 4, 4]


def test_uniform_levels_run_from_t_min_to_t_max() -> None:
    close(sample_t(VariancePreserving.angle(), QUARTILES), float64(0.25125, 0.5005, 0.74975))
    close(sample_t(RectifiedFlow(), QUARTILES), float64(0.25075, 0.5005, 0.75025))
    close(sample_t(VarianceExploding(1, 81), QUARTILES, "uniform"), float64(21, 41, 61))


def test_logit_normal_quantiles() -> None:
    logistic = [1 / (1 + math.exp(-n)) for n in (-Q, 0, Q)]
    close(sample_t(RectifiedFlow(), QUARTILES, "logit-normal"), 0.001 + 0.999 * float64(*logistic))
    moved = [1 / (1 + math.exp(-1 - 0.5 * n)) for n in (-Q, 0, Q)]
    close(sample_t(RectifiedFlow(), QUARTILES, "logit-normal", loc=1.0, scale=0.5), 0.001 + 0.999 * float64(*moved))
    table = sample_t(VariancePreserving.linear(), QUARTILES, "logit-normal")
    assert table.tolist() == [math.floor(1000 * share) + 1 for share in logistic]


def test_log_normal_quantiles() -> None:
    close(sample_t(VarianceExploding(), QUARTILES), torch.exp(float64(-1.2 - 1.2 * Q, -1.2, -1.2 + 1.2 * Q)))
    moved = sample_t(VarianceExploding(), QUARTILES, "log-normal", loc=0.5, scale=2)
    close(moved, torch.exp(float64(0.5 - 2 * Q, 0.5, 0.5 + 2 * Q)))
    table = VariancePreserving.linear()
    whole = sample_t(table, QUARTILES, "log-normal")
    assert torch.equal(whole, table.t_from_log_snr(float64(1.2 + 1.2 * Q, 1.2, 1.2 - 1.2 * Q)).round().long())


def test_defaults_are_those_of_the_papers() -> None:
    defaults = {
        density: {
            name: p.default for name, p in inspect.signature(quantile).parameters.items() if name in ("loc", "scale")
        }
        for density, quantile in QUANTILES.items()
    }
    assert defaults == {
        "uniform": {},
        "logit-normal": {"loc": 0, "scale": 1},
        "log-normal": {"loc": -1.2, "scale": 1.2},
        "folded-normal": {"scale": 0.5},
    }
    assert list(defaults) == list(DENSITIES)


def folded(share: float, scale: float, limit: float) -> float:
    """The quantile of |scale n| given that it does not exceed the limit."""
    normal = NormalDist(0, scale)
    return normal.inv_cdf((1 + share * (2 * normal.cdf(limit) - 1)) / 2)


@pytest.mark.parametrize("scale", [None, 0.2, 3.0])
def test_folded_normal_quantiles(scale: float | None) -> None:
    spread = 0.5 if scale is None else scale
    t = sample_t(VariancePreserving.angle(0.9), QUARTILES, "folded-normal", scale=scale)
    close(t, float64(*[folded(u, spread, 0.9) for u in QUARTILES.tolist()]), rtol=1e-9)
    table = VariancePreserving.linear(20, 0.005, 0.6, zero_terminal_snr=True)
    whole = sample_t(table, QUARTILES, "folded-normal", scale=scale)
    wanted = table.noise_rate(torch.arange(21)) - float64(*[folded(u, spread, 1) for u in QUARTILES.tolist()])[:, None]
    assert ((whole - wanted.abs().argmin(1)).abs() <= 1).all()  # the nearest in log_snr is hardly ever another


def test_folded_normal_holds_for_what_is_noise_of_unit_variance() -> None:
    """sigma = b/a is the same for the angle and for variance-exploding, whose b is not below 1."""
    sigma = sample_t(VarianceExploding(), QUARTILES, "folded-normal")
    share = sigma / (1 + sigma**2).sqrt()
    limit = 80 / math.hypot(1, 80)
    close(share, float64(*[folded(u, 0.5, limit) for u in QUARTILES.tolist()]), rtol=1e-9)


def test_folded_normal_by_default_sees_the_noisiest_levels() -> None:
    """At the seed's .3 a fourteenth of a percent lies above .95, at .5 one percent."""
    process = VariancePreserving.angle()
    shares = [float((sample_t(process, U, "folded-normal", scale=s) > 0.95).double().mean()) for s in (0.3, None)]
    assert shares == [pytest.approx(0.0007, abs=1e-4), pytest.approx(0.0124, abs=2e-4)]


@pytest.mark.parametrize("density", [None, *DENSITIES])
@pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
def test_levels_fill_the_range_and_rise_with_u(process: Process, density: Density | None) -> None:
    t = sample_t(process, torch.cat([float64(0), U, float64(1)]), density)
    assert (t.diff() >= 0).all()
    assert (float(t[0]), float(t[-1])) == (process.t_min, pytest.approx(process.t_max, rel=1e-12))
    assert float(t[-1]) <= process.t_max
    assert t.dtype == (torch.float64 if process.num_train_steps is None else torch.int64)
    process.log_snr(sample_t(process, torch.tensor([1e-7, 1 - 2**-24]), density))


@pytest.mark.parametrize("scale", [0.3, 0.35, 0.4, 0.55, 0.9, 1.4])
def test_folded_normal_ends_at_t_max_whatever_the_rounding(scale: float) -> None:
    for process in FAMILIES.values():
        t = sample_t(process, float64(1), "folded-normal", scale=scale)
        assert float(t) == pytest.approx(process.t_max, rel=1e-6)


def test_the_same_density_is_the_same_noise_for_every_family() -> None:
    u = torch.linspace(0.05, 0.95, 19)
    sigmas = []
    for process in (RectifiedFlow(), VariancePreserving.angle(), VarianceExploding()):
        sigmas.append(-process.log_snr(sample_t(process, u, "log-normal")))
    close(sigmas[0], sigmas[1], rtol=1e-6, atol=1e-9)
    close(sigmas[0], sigmas[2], rtol=1e-6, atol=1e-9)


def test_an_unknown_density_is_refused() -> None:
    with pytest.raises(UserError, match=r"^unknown noise density 'lognormal': did you mean 'log-normal'\?$"):
        sample_t(RectifiedFlow(), U, "lognormal")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown noise density 'x'"):
        check_density("x")
    for density in DENSITIES:
        check_density(read(density))


def test_settings_a_density_does_not_have_are_refused() -> None:
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match=f"^the scale of a noise density is {scale!r}: it must be above 0$"):
            sample_t(RectifiedFlow(), U, "logit-normal", scale=scale)
    for density, settings in (("uniform", {"scale": 1.0}), ("uniform", {"loc": 0.0}), ("folded-normal", {"loc": 1.0})):
        with pytest.raises(UserError, match=f"^the {density} density has no {next(iter(settings))}: leave it out$"):
            sample_t(RectifiedFlow(), U, density, **settings)  # type: ignore[arg-type]
    check_density("log-normal", loc=-3.0, scale=1e-9)
    with pytest.raises(TypeError):
        sample_t(RectifiedFlow(), U, "logit-normal", 1.0, 1.0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        check_density("logit-normal", 1.0)  # type: ignore[misc]
