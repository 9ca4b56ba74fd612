"""Intervals agree with scipy's, and know what is certain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from calotype.evaluation import Estimate, normal_estimate, share_estimate
from calotype.evaluation.estimates import share_of_variance, student_quantile


@pytest.mark.parametrize("degrees", [3, 5, 12, 63, 1000])
def test_students_quantile(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=4e-3 if degrees < 5 else 4e-4)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (4, 12), (30, 192), (188, 192), (7, 7)])
def test_plain_answers_have_wilsons_interval(right: int, total: int) -> None:
    found = share_estimate((torch.arange(total) < right).float())
    value, z2 = right / total, stats.t.ppf(0.975, total - 1) ** 2
    low, high = sorted(np.roots([1 + z2 / total, -2 * value - z2 / total, value**2]).real)
    assert (found.value, found.count) == (pytest.approx(value), total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_many_plain_answers_have_the_interval_of_scipy() -> None:
    found = share_estimate((torch.arange(10**5) < 300).float())
    expected = stats.binomtest(300, 10**5).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-8)


@pytest.mark.parametrize(("rare", "total"), [(1, 32), (2, 32), (3, 192)])
def test_what_was_seen_once_or_twice_may_be_rarer_still(rare: int, total: int) -> None:
    few, most = (share_estimate((torch.arange(total) < right).float()) for right in (rare, total - rare))
    assert few.low * total == pytest.approx(stats.gamma.ppf(0.05, rare), abs=0.013)
    assert (most.low, most.high) == pytest.approx((1 - few.high, 1 - few.low))


@pytest.mark.parametrize("total", [16, 32, 192])
def test_no_share_is_held_much_too_rarely(total: int) -> None:
    """Over all numbers of right answers, weighed by their exact chances."""
    found = [share_estimate((torch.arange(total) < right).float()) for right in range(total + 1)]
    for share in (0.002, 0.01, 0.03, 0.1, 0.25, 0.5, 0.7, 0.95, 0.998):
        chances = stats.binom.pmf(range(total + 1), total, share)
        held = sum(chance for chance, one in zip(chances, found) if one.low <= share <= one.high)
        assert held > 0.92
        assert held < 0.985 or min(share, 1 - share) * total < 3


def test_the_interval_of_many_shares_is_the_normal_one() -> None:
    shares = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    found = share_estimate(shares)
    half = 1.96 * float(shares.std()) / 4000**0.5
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=2e-5)


def test_prompts_that_settle_their_pictures_count_once() -> None:
    """Four pictures of one fate are one answer; four that fall apart tell more than one."""
    halves = torch.tensor([0.0, 1.0]).repeat(50)
    mixed = torch.tensor([0.25, 0.75]).repeat(50)
    one, several = share_estimate(halves), share_estimate(mixed)
    assert one.value == several.value == 0.5
    assert several.high - several.low == pytest.approx((one.high - one.low) / 2, rel=0.05)


def test_a_share_of_known_variance_is_that_of_as_many_answers() -> None:
    found = share_of_variance(0.2, 0.2 * 0.8 / 500, 10**6)
    expected = stats.binomtest(100, 500).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-5)
    assert share_of_variance(1.0, 0.0, 10).low < 0.8


def test_a_mean() -> None:
    found = normal_estimate(2.0, 0.04, 13)
    half = 0.2 * stats.t.ppf(0.975, 12)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-4)
    assert normal_estimate(2.0, -1e-18, 13) == Estimate(2.0, 2.0, 2.0, 13)
    assert found.plain() == {"value": 2.0, "low": found.low, "high": found.high, "count": 13}


def test_nothing_has_no_share() -> None:
    for shares in (torch.zeros(0), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="at least one"):
            share_estimate(shares)
