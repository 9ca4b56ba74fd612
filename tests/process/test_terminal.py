"""What is left of the signal at the noisiest level, and who may start from pure noise."""

import dataclasses
import math
import re

import pytest

from calotype.core.errors import UserError
from calotype.process import (
    RectifiedFlow,
    TerminalSNR,
    VarianceExploding,
    VariancePreserving,
    check_prior,
    terminal_snr,
)
from tests.process.families import FAMILIES


def test_report_of_every_kind_of_end() -> None:
    table = VariancePreserving.linear(2, 0.19, 0.19)  # alpha_bar_2 = .81^2
    report = terminal_snr(table)
    assert dataclasses.astuple(report) == pytest.approx(
        (2, 0.81, math.sqrt(1 - 0.81**2), math.log(0.81 / math.sqrt(1 - 0.81**2)), 0.81), rel=1e-12
    )
    assert terminal_snr(RectifiedFlow()) == TerminalSNR(1, 0, 1, -math.inf, 0)
    assert terminal_snr(VarianceExploding(1, 7)) == TerminalSNR(1.0 * 7, 1, 7, -math.log(7), 1 / math.hypot(1, 7))
    assert all(type(value) is float for value in dataclasses.astuple(report))


def test_share_is_the_signal_of_a_unit_variance_x_t() -> None:
    assert terminal_snr(VarianceExploding(1, 4 / 3)).share == pytest.approx(0.6)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_forgets_the_signal(name: str) -> None:
    check_prior(FAMILIES[name])
    assert terminal_snr(FAMILIES[name]).reaches_prior


def test_the_limit_is_a_tenth() -> None:
    assert TerminalSNR(1, 0.1, 1, 0, 0.1).reaches_prior
    assert not TerminalSNR(1, 0.1, 1, 0, 0.1000001).reaches_prior
    check_prior(VarianceExploding(sigma_max=math.sqrt(99) + 1e-9))
    with pytest.raises(UserError):
        check_prior(VarianceExploding(sigma_max=math.sqrt(99) - 1e-9))


def test_one_line_for_people() -> None:
    assert str(terminal_snr(VarianceExploding())) == (
        "at t = 80 0.0125 of the signal is left (log_snr -4.38, limit 0.1): sampling may start from pure noise"
    )
    assert str(terminal_snr(VariancePreserving.linear(100))) == (
        "at t = 100 0.603 of the signal is left (log_snr -0.28, limit 0.1): sampling must not start from pure noise"
    )


def test_a_prior_that_is_not_reached_is_refused_with_both_numbers() -> None:
    """beta up to .002 with T = 100 leaves alpha_bar = .900, yet sampling would start from N(0, I)."""
    process = VariancePreserving.linear(num_train_steps=100, beta_end=0.002)
    said = (
        "the process keeps signal_rate 0.949 at its noisiest t = 100, but starting from pure noise needs at most 0.1: "
        "train with more noise (betas belong to T: scale them by 1000/T) or start from a noised picture"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        check_prior(process)


def test_a_report_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        terminal_snr(RectifiedFlow()).share = 1  # type: ignore[misc]
