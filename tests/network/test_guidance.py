"""Guidance and thresholding are wrappers that do nothing when switched off and never mix pictures."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.types import TextEmbedding
from calotype.network import Condition, dynamic_thresholding, guided, thresholded

X = torch.arange(24.0).reshape(3, 2, 2, 2)
T = torch.tensor([10.0, 500.0, 900.0])


class Probe:
    """Answers x + label, and x - 1 for null rows; counts passes and rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.rows.append(len(x_t))
        assert len(t) == len(x_t)
        if cond is None:
            return x_t
        assert len(cond) == len(x_t)
        if isinstance(cond, Tensor):
            return x_t + cond.reshape(len(cond), -1)[:, :1, None, None]
        shift = torch.where(cond.null, -1.0, cond.label.float())
        return x_t + shift[:, None, None, None]


def labels(*values: int) -> Condition:
    return Condition(torch.zeros(len(values), dtype=torch.bool), torch.tensor(values))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.0, -1.0])
def test_the_formula_in_one_batched_pass(scale: float) -> None:
    probe = Probe()
    found = guided(probe, scale=scale)(X, T, labels(5, 6, 7))
    expected = scale * (X + torch.tensor([5.0, 6.0, 7.0])[:, None, None, None]) + (1 - scale) * (X - 1)
    torch.testing.assert_close(found, expected)
    assert probe.rows == [6]


def test_scale_one_is_the_conditional_denoiser_exactly() -> None:
    probe = Probe()
    assert torch.equal(guided(probe, scale=1)(X, T, labels(5, 6, 7)), Probe()(X, T, labels(5, 6, 7)))
    assert probe.rows == [3]


def test_scalar_t_and_no_condition() -> None:
    probe = Probe()
    assert torch.equal(guided(probe, scale=4.0)(X, torch.tensor(3.0), None), X)
    assert probe.rows == [3]


def test_null_condition_may_be_a_negative_prompt() -> None:
    expected = 2 * (X + 5) - (X + 9)
    for negative in (labels(9), labels(9, 9, 9)):
        torch.testing.assert_close(guided(Probe(), 2.0, negative)(X, T, labels(5, 5, 5)), expected)
    with pytest.raises(ValueError, match="2 rows"):
        guided(Probe(), 2.0, labels(9, 9))(X, T, labels(5, 5, 5))


def test_tensor_conditions() -> None:
    cond = torch.full((3, 4), 5.0)
    expected = 2 * (X + 5) - X
    for null in (torch.zeros(4), torch.zeros(1, 4), torch.zeros(3, 4)):
        torch.testing.assert_close(guided(Probe(), 2.0, null)(X, T, cond), expected)
    with pytest.raises(ValueError, match="null_cond"):
        guided(Probe(), 2.0)(X, T, cond)


def test_text_conditions_of_different_length_are_padded() -> None:
    def text(length: int) -> Condition:
        ones = torch.ones(3, length)
        return Condition(torch.zeros(3, dtype=torch.bool), None, TextEmbedding(ones, ones[..., None], ones.bool()))

    def denoiser(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert cond.text.tokens.shape == (6, 5, 1)
        return x_t + cond.text.mask.sum(1)[:, None, None, None]

    short, long = text(2), text(5)
    short = Condition(short.null, None, TextEmbedding(long.text.pooled, short.text.tokens, short.text.mask))
    torch.testing.assert_close(guided(denoiser, 3.0, short)(X, T, long), 3 * (X + 5) - 2 * (X + 2))


def test_outside_the_interval_guidance_is_off() -> None:
    cond, probe = labels(5, 5, 5), Probe()
    denoiser = guided(probe, scale=3.0, interval=(100, 600))
    for t in (10.0, 900.0):
        assert torch.equal(denoiser(X, torch.tensor(t), cond), X + 5)
    assert probe.rows == [3, 3]
    for t in (100.0, 500.0, 600.0):
        torch.testing.assert_close(denoiser(X, torch.tensor(t), cond), 3 * (X + 5) - 2 * (X - 1))
    mixed = denoiser(X, T, cond)
    torch.testing.assert_close(mixed[[0, 2]], X[[0, 2]] + 5)
    torch.testing.assert_close(mixed[1], 3 * (X[1] + 5) - 2 * (X[1] - 1))
    with pytest.raises(ValueError, match="t_low"):
        guided(probe, interval=(5, 2))


def test_rows_do_not_see_each_other() -> None:
    denoiser = thresholded(guided(Probe(), 3.0), 90.0, 1.0)
    together = denoiser(X, T, labels(1, 2, 3))
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], denoiser(X[i : i + 1], T[i : i + 1], labels(i + 1)))


def test_thresholding_by_hand() -> None:
    # |x0| = 0 ... 10; the 90th percentile is 9, so 10 is cut to 9 and everything divided by 9.
    x0 = torch.arange(11.0).reshape(1, 11) * torch.tensor([1, -1] * 5 + [1])
    expected = x0.clamp(-9, 9) / 9
    torch.testing.assert_close(dynamic_thresholding(x0, 90.0), expected)


def test_latents_within_the_bound_pass_unchanged() -> None:
    x0 = torch.randn(4, 4, 8, 8).clamp(-2.8, 2.8)
    torch.testing.assert_close(dynamic_thresholding(x0, 99.5, bound=3.0), x0)
    spread = dynamic_thresholding(x0 * 3, 99.5, bound=3.0)
    assert float(spread.abs().max()) == pytest.approx(3.0)


def test_thresholding_is_per_sample() -> None:
    x0 = torch.randn(2, 4, 8, 8)
    x0[1] *= 50
    torch.testing.assert_close(dynamic_thresholding(x0)[:1], dynamic_thresholding(x0[:1]))


def test_thresholding_refuses_nonsense() -> None:
    for percentile, bound in ((0.0, 1.0), (101.0, 1.0), (99.0, 0.0)):
        with pytest.raises(ValueError, match="percentile"):
            dynamic_thresholding(X, percentile, bound)
