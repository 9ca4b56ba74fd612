"""Thresholding: by hand, against numpy's quantile, per sample, and idle on latents that are not extreme."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.network import clipped, dynamic_thresholding, thresholded


class Echo:
    """Answers x_t + t + cond, whatever they are."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return x_t + t + (0.0 if cond is None else cond)


def test_by_hand() -> None:
    # |x0| = 0 ... 10 in both signs: the 90th percentile is 9, so 10 is cut to 9 and everything divided by 9, times 2.
    x0 = torch.arange(11.0).reshape(1, 11) * torch.tensor([1, -1] * 5 + [1])
    torch.testing.assert_close(dynamic_thresholding(x0, 90.0), x0.clamp(-9, 9) / 9)
    torch.testing.assert_close(dynamic_thresholding(x0, 90.0, 2.0), x0.clamp(-9, 9) * 2 / 9)
    torch.testing.assert_close(dynamic_thresholding(x0, 85.0), x0.clamp(-8.5, 8.5) / 8.5)


def test_per_sample_against_numpy_in_double_precision() -> None:
    x0 = torch.randn(3, 4, 5, 6, dtype=torch.float64) * torch.tensor([0.2, 2.0, 50.0]).reshape(3, 1, 1, 1)
    for settings, percentile, bound in (((), 99.5, 1.0), ((98.0, 0.7), 98.0, 0.7), ((100, 3), 100, 3)):
        found = dynamic_thresholding(x0, *settings)
        for row, sample in zip(found.numpy(), x0.numpy()):
            limit = max(bound, np.quantile(np.abs(sample), percentile / 100))
            np.testing.assert_allclose(row, np.clip(sample, -limit, limit) * bound / limit, rtol=1e-14)
        assert found.shape == x0.shape
        assert found.dtype == torch.float64


def test_latents_within_the_bound_pass_unchanged() -> None:
    x0 = torch.randn(4, 4, 8, 8).clamp(-2.8, 2.8)
    assert torch.equal(dynamic_thresholding(x0, 99.5, bound=3.0), x0)
    assert float(dynamic_thresholding(x0 * 3, 99.5, bound=3.0).abs().max()) == pytest.approx(3.0)


def test_half_precision_comes_back_as_it_came() -> None:
    x0 = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    found = dynamic_thresholding(x0.to(torch.bfloat16), 100.0, 2.0)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), x0 / 2)


def test_the_wrappers() -> None:
    x_t, t, cond = torch.arange(-48.0, 48).reshape(2, 3, 4, 4) / 8, torch.tensor(0.5), torch.tensor(-0.25)
    for settings in ((), (80.0,), (80.0, 1.5)):
        denoiser = thresholded(Echo(), *settings)
        assert torch.equal(denoiser(x_t, t, cond), dynamic_thresholding(x_t + 0.25, *settings))
        assert torch.equal(denoiser(x_t, t), dynamic_thresholding(x_t + 0.5, *settings))
    assert torch.equal(clipped(Echo())(x_t, t, cond), (x_t + 0.25).clamp(-1, 1))
    assert torch.equal(clipped(Echo(), 2.5)(x_t, t), (x_t + 0.5).clamp(-2.5, 2.5))
    inner = Echo()
    assert thresholded(inner).denoiser is inner
    assert clipped(inner).denoiser is inner


@pytest.mark.parametrize("percentile", [0.0, -0.5, 100.5, math.nan])
def test_a_percentile_that_is_none(percentile: float) -> None:
    for refused in (
        lambda: dynamic_thresholding(torch.ones(1, 2), percentile),
        lambda: thresholded(Echo(), percentile),
    ):
        with pytest.raises(UserError) as error:
            refused()
        assert str(error.value) == (
            f"the thresholding percentile is {percentile:g}: it lies above 0 and reaches to 100"
        )


@pytest.mark.parametrize("bound", [0.0, -0.5, math.inf, math.nan])
def test_a_bound_that_is_none(bound: float) -> None:
    for refused in (
        lambda: dynamic_thresholding(torch.ones(1, 2), bound=bound),
        lambda: thresholded(Echo(), bound=bound),
        lambda: clipped(Echo(), bound),
    ):
        with pytest.raises(UserError) as error:
            refused()
        assert str(error.value) == (
            f"the bound on x0_hat is {bound:g}: it is a positive, finite number; 1 for data in [-1, 1]"
        )


def test_the_smallest_percentile_and_bound() -> None:
    x0 = torch.tensor([[1.0, -3.0]])
    torch.testing.assert_close(dynamic_thresholding(x0, 0.5, 0.5), torch.tensor([[0.5 / 1.01, -0.5]]))
    assert torch.equal(clipped(Echo(), 0.5)(x0, torch.tensor(0.0)), torch.tensor([[0.5, -0.5]]))
