"""Tables against numbers worked out by hand, and what must hold between and beyond their entries."""

import dataclasses
import math
import re
import warnings

import mpmath
import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process import NoiseSchedule, Process, VariancePreserving
from calotype.process.schedule import AngleSchedule, as_float64, within
from tests.process.families import FAMILIES, close, float64

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())


def test_four_steps_by_hand() -> None:
    # beta = .1, .2, .3, .4, so alpha_bar = .9, .9 * .8, .72 * .7, .504 * .6
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    alpha_bar = float64(1, 0.9, 0.72, 0.504, 0.3024)
    t = torch.arange(5)
    close(process.signal_rate(t), alpha_bar.sqrt(), rtol=1e-14)
    close(process.noise_rate(t), (1 - alpha_bar).sqrt(), rtol=1e-14)
    close(process.alpha_bar(t), alpha_bar, rtol=1e-14)
    close(process.log_snr(t), torch.log(alpha_bar / (1 - alpha_bar)) / 2, rtol=1e-13)
    assert (process.t_min, process.t_max, process.num_train_steps) == (1, 4, 4)


def test_scaled_linear_by_hand() -> None:
    # sqrt(beta) = .1, .2, .3, so beta = .01, .04, .09
    process = VariancePreserving.scaled_linear(num_train_steps=3, beta_start=0.01, beta_end=0.09)
    expected = float64(0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91)
    close(process.alpha_bar(torch.arange(1, 4)), expected, rtol=1e-14)


def precise(alpha_bar: list[mpmath.mpf]) -> Tensor:
    """log_snr of these alpha_bar, in thirty digits."""
    return float64(*[float(mpmath.log(value / (1 - value)) / 2) if value else -math.inf for value in alpha_bar])


def test_schedules_agree_with_thirty_digits() -> None:
    with mpmath.workdps(30):
        start, end, last = mpmath.mpf(1e-4), mpmath.mpf(0.02), 1000
        plain = [mpmath.mpf(1)]
        for i in range(last):
            plain.append(plain[-1] * (1 - (start + (end - start) * i / (last - 1))))
        first, bottom = mpmath.sqrt(plain[1]), mpmath.sqrt(plain[-1])
        shifted = [(first * (mpmath.sqrt(value) - bottom) / (first - bottom)) ** 2 for value in plain]
        latent, root = [mpmath.mpf(1)], [mpmath.sqrt(mpmath.mpf(value)) for value in (0.00085, 0.012)]
        for i in range(last):
            latent.append(latent[-1] * (1 - (root[0] + (root[1] - root[0]) * i / (last - 1)) ** 2))
        t = torch.arange(1, last + 1)
        close(FAMILIES["linear"].log_snr(t), precise(plain[1:]), rtol=1e-11)
        close(FAMILIES["linear-zero-terminal"].log_snr(t), precise(shifted[1:]), rtol=1e-10)
        close(FAMILIES["scaled-linear"].log_snr(t), precise(latent[1:]), rtol=1e-11, atol=1e-11)


def test_cosine_by_its_own_curve_and_cap() -> None:
    process = VariancePreserving.cosine(num_train_steps=5, offset=0.1, beta_max=0.9)
    with mpmath.workdps(30):
        share = [(mpmath.mpf(i) / 5 + mpmath.mpf(0.1)) / (1 + mpmath.mpf(0.1)) for i in range(6)]
        f = [mpmath.cos(x * mpmath.pi / 2) ** 2 for x in share]
        alpha_bar = [value / f[0] for value in f[1:5]]
        alpha_bar.append(alpha_bar[-1] * (1 - mpmath.mpf(0.9)))  # the last beta would be 1
        close(process.log_snr(torch.arange(1, 6)), precise(alpha_bar), rtol=1e-13)
    assert float(VariancePreserving.cosine(1, beta_max=0.3).alpha_bar(torch.tensor(1))) == pytest.approx(0.7, rel=1e-14)


def test_betas_belong_to_t() -> None:
    left = [float(VariancePreserving.linear(num_train_steps=n).signal_rate(torch.tensor(n))) for n in (1000, 200, 50)]
    assert left == [pytest.approx(0.00635, abs=5e-5), pytest.approx(0.36, abs=0.01), pytest.approx(0.78, abs=0.01)]


def test_zero_terminal_snr_by_hand() -> None:
    # rates .8 and .6 (alpha_bar .64, .36): the last goes to 0, the first stays.
    process = VariancePreserving(NoiseSchedule.from_betas(float64(0.36, 1 - 0.36 / 0.64), {}, zero_terminal_snr=True))
    close(process.signal_rate(float64(0, 1, 2)), float64(1, 0.8, 0), atol=1e-16)
    close(process.noise_rate(float64(0, 1, 2)), float64(0, 0.6, 1), atol=1e-16)
    # Below 1 sigma is linear, sigma_1 = 3/4; above T - 1 = 1 its inverse is.
    close(torch.exp(-process.log_snr(float64(0.25, 0.5))), float64(0.1875, 0.375))
    close(torch.exp(process.log_snr(float64(1.25, 1.5, 1.75))), float64(1, 2 / 3, 1 / 3))
    close(process.t_from_log_snr(-float64(0.1875, 0.75).log()), float64(0.25, 1))
    close(process.t_from_log_snr(float64(2 / 3, 1 / 3).log()), float64(1.5, 1.75))


def test_between_entries_log_snr_is_linear_and_below_the_first_sigma_is() -> None:
    process = VariancePreserving.linear(num_train_steps=4, beta_start=0.1, beta_end=0.4)
    table = process.log_snr(torch.arange(5))
    close(process.log_snr(float64(2.25)), 0.75 * table[2:3] + 0.25 * table[3:4], rtol=1e-14)
    close(process.log_snr(float64(3.5)), 0.5 * table[3:4] + 0.5 * table[4:5], rtol=1e-14)
    close(process.log_snr(float64(0.25)), table[1:2] + math.log(4), rtol=1e-14)
    close(process.t_from_log_snr(0.75 * table[2:3] + 0.25 * table[3:4]), float64(2.25))
    close(process.t_from_log_snr(table[1:2] + math.log(4)), float64(0.25))
    assert process.t_from_log_snr(table).tolist() == [0, 1, 2, 3, 4]


def test_a_table_of_one_entry() -> None:
    process = VariancePreserving.linear(1, 0.36, 0.36)
    close(process.signal_rate(float64(0, 1)), float64(1, 0.8))
    close(process.log_snr(float64(0.25, 1)), (float64(16, 4) / 3).log())
    close(process.t_from_log_snr(process.log_snr(float64(0.25, 1))), float64(0.25, 1))


def test_tiny_noise_keeps_its_digits() -> None:
    # 1 - alpha_bar of a beta of 1e-14 is lost when it is subtracted from 1.
    process = VariancePreserving.linear(num_train_steps=2, beta_start=1e-14, beta_end=1e-14)
    assert float(process.noise_rate(torch.tensor(1))) == pytest.approx(1e-7, rel=1e-12)


def test_a_table_is_a_value_and_is_not_compared_number_by_number() -> None:
    schedule = NoiseSchedule.from_betas(float64(0.1, 0.2), {}, zero_terminal_snr=False)
    assert schedule != NoiseSchedule(schedule.table.clone(), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.settings = {}  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        AngleSchedule(0.9).t_max = 0.99  # type: ignore[misc]
    with pytest.raises(TypeError):
        NoiseSchedule.from_betas(float64(0.1, 0.2), {}, False)  # type: ignore[misc]


@ALL
def test_log_snr_falls_continuously_from_infinity(process: Process) -> None:
    t = torch.cat([torch.zeros(1), torch.logspace(-6, 0, 200), torch.linspace(0, 1, 2000)[1:-1]]).double()
    t = (t * process.t_max).unique()
    log_snr = process.log_snr(t)
    assert log_snr[0] == math.inf
    assert (log_snr.diff() < 0).all()
    inner = t[1:-1]
    jump = (process.signal_rate(inner * (1 + 1e-9)) - process.signal_rate(inner)).abs()
    assert float(jump.max()) < 1e-6


@ALL
def test_rates_and_log_snr_agree(process: Process) -> None:
    t = torch.linspace(0.001, 1, 301, dtype=torch.float64) * process.t_max
    a, b = process.signal_rate(t), process.noise_rate(t)
    close(process.log_snr(t), torch.log(a) - torch.log(b), rtol=1e-9, atol=1e-9)
    assert float(process.signal_rate(torch.tensor(0))) == 1
    assert float(process.noise_rate(torch.tensor(0))) == 0


@ALL
def test_log_snr_has_its_inverse(process: Process) -> None:
    t = torch.cat([float64(1e-3, 0.3, 0.999), torch.linspace(1e-3, 0.9999, 500) * process.t_max]).double()
    t = t[t < process.t_max]
    close(process.t_from_log_snr(process.log_snr(t)), t, rtol=1e-7, atol=1e-9)
    beyond = process.t_from_log_snr(torch.tensor([math.inf, -60.0, -math.inf]))
    close(beyond, float64(0, process.t_max, process.t_max))


@ALL
def test_any_dtype_and_shape_of_t_gives_float64_of_that_shape(process: Process) -> None:
    for dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.float16):
        for t in (torch.tensor(1, dtype=dtype), torch.ones(2, 3, dtype=dtype)):
            t = t if process.t_max >= 1 else t * 0
            for values in (process.signal_rate(t), process.noise_rate(t), process.log_snr(t), process.input_scale(t)):
                assert values.shape == t.shape
                assert values.dtype == torch.float64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turned = process.t_from_log_snr(torch.linspace(-1, 1, 6).reshape(2, 3).T)
    assert torch.equal(turned.T.flatten(), process.t_from_log_snr(torch.linspace(-1, 1, 6)))


@ALL
def test_levels_outside_the_range_are_refused(process: Process) -> None:
    for t in (-0.5, process.t_max * 1.01, math.nan):
        said = re.escape(f"t = {t:g} lies outside the process's range 0 ... {process.t_max:g}")
        with pytest.raises(ValueError, match=f"^{said}$"):
            process.signal_rate(float64(0.5 * process.t_max, t, -0.25))


def test_the_noisiest_level_survives_single_precision() -> None:
    process = VariancePreserving.angle(0.999)  # float32(0.999) is a little above it
    assert float(process.noise_rate(torch.tensor(0.999, dtype=torch.float32))) == pytest.approx(0.999, rel=1e-12)
    assert within(float64(100 * (1 + 9e-7)), 100).tolist() == [100]
    with pytest.raises(ValueError, match="outside"):
        within(float64(100 * (1 + 1.1e-6)), 100)


@ALL
def test_on_an_accelerator_no_value_is_fetched(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch would stall the queue of kernels, so there a bad t becomes NaN. The CPU plays the accelerator."""
    good = float64(0.25, 0.5, 1) * process.t_max
    t = torch.cat([good, float64(-0.5, process.t_max * 1.01, math.nan)])
    readings = [process.noise_rate, process.log_snr]
    expected = [read(good) for read in readings]
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    for name in ("item", "tolist", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, None)
    values = [read(t) for read in readings]
    monkeypatch.undo()
    for value, wanted in zip(values, expected):
        assert torch.equal(value[:3], wanted)
        assert value[3:].isnan().all()


def test_a_device_without_float64_is_served_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Tensor] = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: moved.append(t) or t)
    assert as_float64(torch.tensor(2)).dtype == torch.float64
    assert not moved
    monkeypatch.setattr(torch.Tensor, "is_mps", True)
    assert as_float64(torch.tensor(2)).dtype == torch.float64
    assert len(moved) == 1


def test_the_table_goes_where_t_is() -> None:
    schedule = NoiseSchedule.from_betas(float64(0.1, 0.2), {}, zero_terminal_snr=True)
    table = schedule._finite(torch.empty(0, device="meta"))
    assert (table.device.type, table.dtype, len(table)) == ("meta", torch.float64, 1)


BETAS = "betas run from {} to {}: they must satisfy 0 < start <= end < 1"
COSINE = "cosine schedule: offset is {} and beta_max {}: they must satisfy 0 <= offset < 1 and 0 < beta_max < 1"
STEPS = "num_train_steps is {}: give a whole number of at least 1"
ANGLE = "t_max is {}: the angle's levels end above 0.002 and below 1, e.g. at 0.999"
linear, scaled, cosine = VariancePreserving.linear, VariancePreserving.scaled_linear, VariancePreserving.cosine


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: linear(0), STEPS.format(0)),
        (lambda: linear(-1), STEPS.format(-1)),
        (lambda: linear(True), STEPS.format(True)),
        (lambda: scaled(2.5), STEPS.format(2.5)),  # type: ignore[arg-type]
        (lambda: cosine(0), STEPS.format(0)),
        (lambda: linear(10, 0.5, 0.1), BETAS.format(0.5, 0.1)),
        (lambda: linear(10, 0.0, 0.1), BETAS.format(0.0, 0.1)),
        (lambda: linear(10, -0.1, 0.1), BETAS.format(-0.1, 0.1)),
        (lambda: scaled(10, 0.1, 1.0), BETAS.format(0.1, 1.0)),
        (lambda: linear(10, 0.1, 1.5), BETAS.format(0.1, 1.5)),
        (lambda: cosine(10, offset=-1), COSINE.format(-1, 0.999)),
        (lambda: cosine(10, offset=1), COSINE.format(1, 0.999)),
        (lambda: cosine(10, offset=1.5), COSINE.format(1.5, 0.999)),
        (lambda: cosine(10, beta_max=0), COSINE.format(0.008, 0)),
        (lambda: cosine(10, beta_max=-0.5), COSINE.format(0.008, -0.5)),
        (lambda: cosine(10, beta_max=1), COSINE.format(0.008, 1)),
        (lambda: cosine(10, beta_max=1.5), COSINE.format(0.008, 1.5)),
        (lambda: VariancePreserving.angle(1), ANGLE.format(1)),
        (lambda: VariancePreserving.angle(1.5), ANGLE.format(1.5)),
        (lambda: VariancePreserving.angle(0.002), ANGLE.format(0.002)),
        (lambda: VariancePreserving.angle(-1), ANGLE.format(-1)),
        (
            lambda: linear(1, 0.1, 0.1, zero_terminal_snr=True),
            "zero terminal SNR needs at least 2 steps: raise num_train_steps",
        ),
    ],
)
def test_impossible_schedules_are_refused(make: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        make()  # type: ignore[operator]


def test_the_limits_themselves_are_allowed() -> None:
    assert linear(1, 0.3, 0.3).t_max == 1
    assert linear(2, 0.3, 0.3, zero_terminal_snr=True).schedule.ends_without_signal  # type: ignore[union-attr]
    assert cosine(3, offset=0).t_max == 3
    assert VariancePreserving.angle(0.003).t_max == 0.003
