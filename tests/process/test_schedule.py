"""Tables against numbers worked out by hand, and what must hold between and beyond their entries."""

import math

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import Process, VariancePreserving
from tests.process.families import FAMILIES

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())


def test_four_steps_by_hand() -> None:
    # beta = .1, .2, .3, .4, so alpha_bar = .9, .9 * .8, .72 * .7, .504 * .6
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    alpha_bar = torch.tensor([1, 0.9, 0.72, 0.504, 0.3024], dtype=torch.float64)
    t = torch.arange(5)
    torch.testing.assert_close(process.signal_rate(t), alpha_bar.sqrt(), rtol=1e-14, atol=0)
    torch.testing.assert_close(process.noise_rate(t), (1 - alpha_bar).sqrt(), rtol=1e-14, atol=0)
    torch.testing.assert_close(process.alpha_bar(t), alpha_bar, rtol=1e-14, atol=0)
    assert process.t_max == 4
    assert process.num_train_steps == 4


def test_scaled_linear_by_hand() -> None:
    # sqrt(beta) = .1, .2, .3, so beta = .01, .04, .09
    process = VariancePreserving.scaled_linear(num_train_steps=3, beta_start=0.01, beta_end=0.09)
    expected = torch.tensor([0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91], dtype=torch.float64)
    torch.testing.assert_close(process.alpha_bar(torch.arange(1, 4)), expected, rtol=1e-14, atol=0)


def test_cosine_follows_its_curve_until_the_cap() -> None:
    process = VariancePreserving.cosine(num_train_steps=1000)
    t = torch.arange(1, 999)
    f = torch.cos((t.double() / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    expected = f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(process.alpha_bar(t), expected, rtol=1e-9, atol=0)
    last = process.alpha_bar(torch.tensor([999, 1000]))
    assert float(last[1] / last[0]) == pytest.approx(0.001)  # 1 - the cap of .999


def test_betas_belong_to_t() -> None:
    left = [float(VariancePreserving.linear(num_train_steps=n).signal_rate(torch.tensor(n))) for n in (1000, 200, 50)]
    assert left == [pytest.approx(0.00635, abs=5e-5), pytest.approx(0.36, abs=0.01), pytest.approx(0.78, abs=0.01)]


def test_zero_terminal_snr_keeps_the_first_level_and_ends_without_signal() -> None:
    plain, process = VariancePreserving.linear(), VariancePreserving.linear(zero_terminal_snr=True)
    first, last = torch.tensor(1), torch.tensor(1000)
    torch.testing.assert_close(process.signal_rate(first), plain.signal_rate(first))
    assert float(process.signal_rate(last)) == 0
    assert float(process.noise_rate(last)) == 1
    rate, middle = plain.signal_rate(torch.arange(1, 1001)), 500
    expected = (rate[middle - 1] - rate[-1]) * rate[0] / (rate[0] - rate[-1])
    torch.testing.assert_close(process.signal_rate(torch.tensor(middle)), expected)


def test_tiny_noise_keeps_its_digits() -> None:
    # 1 - alpha_bar of a beta of 1e-14 is lost when it is subtracted from 1.
    process = VariancePreserving.linear(num_train_steps=2, beta_start=1e-14, beta_end=1e-14)
    assert float(process.noise_rate(torch.tensor(1))) == pytest.approx(1e-7, rel=1e-12)


def test_halfway_between_two_entries_log_snr_is_halfway() -> None:
    process = VariancePreserving.linear()
    low, high = process.log_snr(torch.tensor(500)), process.log_snr(torch.tensor(501))
    torch.testing.assert_close(process.log_snr(torch.tensor(500.25)), 0.75 * low + 0.25 * high)


@ALL
def test_log_snr_falls_continuously_from_infinity(process: Process) -> None:
    t = torch.cat(
        [torch.zeros(1), torch.logspace(-6, 0, 200), torch.linspace(0, 1, 2000)[1:-1], torch.ones(1)]
    ).double()
    t = (t * process.t_max).unique()
    log_snr = process.log_snr(t)
    assert log_snr[0] == math.inf
    assert bool((log_snr.diff() < 0).all())
    inner = t[1:-1]
    jump = (process.signal_rate(inner * (1 + 1e-9)) - process.signal_rate(inner)).abs()
    assert float(jump.max()) < 1e-6


@ALL
def test_rates_and_log_snr_agree(process: Process) -> None:
    t = torch.linspace(0.001, 1, 301, dtype=torch.float64) * process.t_max
    a, b = process.signal_rate(t), process.noise_rate(t)
    torch.testing.assert_close(process.log_snr(t), torch.log(a) - torch.log(b), rtol=1e-9, atol=1e-9)
    assert float(process.signal_rate(torch.tensor(0))) == 1
    assert float(process.noise_rate(torch.tensor(0))) == 0


@ALL
def test_log_snr_has_its_inverse(process: Process) -> None:
    t = torch.cat([torch.tensor([1e-3, 0.3, 0.999]), torch.linspace(1e-3, 0.9999, 500) * process.t_max]).double()
    t = t[t < process.t_max]
    torch.testing.assert_close(process.t_from_log_snr(process.log_snr(t)), t, rtol=1e-7, atol=1e-9)
    assert float(process.t_from_log_snr(torch.tensor(-60.0))) == pytest.approx(process.t_max)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32, torch.float16])
def test_any_dtype_and_shape_of_t_gives_float64_of_that_shape(process: Process, dtype: torch.dtype) -> None:
    for t in (torch.tensor(1, dtype=dtype), torch.ones(2, 3, dtype=dtype)):
        t = t if process.t_max >= 1 else t * 0
        for values in (process.signal_rate(t), process.noise_rate(t), process.log_snr(t)):
            assert values.shape == t.shape
            assert values.dtype == torch.float64


@ALL
def test_levels_outside_the_range_are_refused(process: Process) -> None:
    for t in (-0.5, process.t_max * 1.01, math.nan):
        with pytest.raises(ValueError, match=f"outside the process's range 0 ... {process.t_max:g}"):
            process.signal_rate(torch.tensor([0.5 * process.t_max, t]))


def test_the_noisiest_level_survives_single_precision() -> None:
    process = VariancePreserving.angle(0.999)  # float32(0.999) is a little above it
    assert float(process.noise_rate(torch.tensor(0.999, dtype=torch.float32))) == pytest.approx(0.999, rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VariancePreserving.linear(0),
        lambda: VariancePreserving.linear(10, 0.5, 0.1),
        lambda: VariancePreserving.linear(10, 0.0, 0.1),
        lambda: VariancePreserving.scaled_linear(10, 0.1, 1.0),
        lambda: VariancePreserving.cosine(2.5),  # type: ignore[arg-type]
        lambda: VariancePreserving.cosine(10, offset=-1),
        lambda: VariancePreserving.angle(1.0),
        lambda: VariancePreserving.linear(1, 0.1, 0.1, zero_terminal_snr=True),
    ],
)
def test_impossible_schedules_are_refused(make: object) -> None:
    with pytest.raises(UserError):
        make()  # type: ignore[operator]
