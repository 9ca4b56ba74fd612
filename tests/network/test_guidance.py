"""Guidance: identities, exact denoisers of Gaussian classes, and one order in which wrappers are put on."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.types import TextEmbedding
from calotype.network import (
    Condition,
    NetworkDenoiser,
    autoguided,
    clipped,
    dress,
    dynamic_thresholding,
    guided,
    thresholded,
)
from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving

X = torch.arange(24.0).reshape(3, 2, 2, 2)
T = torch.tensor([10.0, 500.0, 900.0])


class Incomparable:
    """Nobody may ask whether this equals something: arrays and tensors answer that element by element."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared by value")


class Probe(Incomparable):
    """Answers x + label, and x - 1 for null rows, plus `offset`; counts the rows of every pass."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset, self.rows = offset, list[int]()

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.rows.append(len(x_t))
        assert t.shape == (len(x_t),)
        if cond is None:
            return x_t + self.offset
        assert len(cond) == len(x_t)
        if isinstance(cond, Tensor):
            shift = cond.reshape(len(cond), -1)[:, 0]
        else:
            shift = torch.where(cond.null, -1.0, cond.label.to(x_t.dtype))
        return x_t + (shift + self.offset)[:, None, None, None]


class Asked(Incomparable, Condition):
    """A condition that may not be compared by value."""


def labels(*values: int) -> Condition:
    return Asked(torch.zeros(len(values), dtype=torch.bool), torch.tensor(values))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.0, -1.0])
def test_the_formula_in_one_batched_pass(scale: float) -> None:
    probe = Probe()
    found = guided(probe, scale=scale)(X, T, labels(5, 6, 7))
    expected = scale * (X + torch.tensor([5.0, 6.0, 7.0])[:, None, None, None]) + (1 - scale) * (X - 1)
    torch.testing.assert_close(found, expected)
    assert probe.rows == [6]
    assert found.dtype == torch.float32


def test_scale_one_is_the_conditional_denoiser_exactly() -> None:
    torch.manual_seed(0)
    probe, x_t = Probe(), torch.randn(3, 2, 2, 2)
    for wrapped in (
        guided(probe, scale=1),
        guided(probe, 1.0, labels(9), rescale=0.7),
        guided(probe, 1.0, interval=(1, 2)),
    ):
        assert torch.equal(wrapped(x_t, T, labels(5, 6, 7)), Probe()(x_t, T, labels(5, 6, 7)))
    assert probe.rows == [3, 3, 3]


def test_the_default_scale_is_three() -> None:
    torch.testing.assert_close(guided(Probe())(X, T, labels(5, 5, 5)), 3 * (X + 5) - 2 * (X - 1))


def test_the_scale_keeps_double_precision() -> None:
    x_t, seen = X.double(), list[Tensor]()

    def denoiser(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        seen.append(t)
        return Probe()(x_t, t, cond)

    found = guided(denoiser, scale=0.1)(x_t, T, labels(5, 5, 5))
    torch.testing.assert_close(found, 0.1 * (x_t + 5) + 0.9 * (x_t - 1), rtol=1e-15, atol=0)
    assert torch.equal(seen[0], torch.cat([T, T]))


def test_no_condition_and_one_level_for_all() -> None:
    probe = Probe()
    assert torch.equal(guided(probe, scale=4.0)(X, torch.tensor(3.0)), X)
    assert probe.rows == [3]
    found = guided(probe, scale=2.0)(X, torch.tensor(500), labels(5, 5, 5))
    torch.testing.assert_close(found, 2 * (X + 5) - (X - 1))
    assert probe.rows == [3, 6]


def test_null_condition_may_be_a_negative_prompt() -> None:
    torch.testing.assert_close(guided(Probe(), 2.0, labels(9))(X, T, labels(5, 5, 5)), 2 * (X + 5) - (X + 9))
    each = guided(Probe(), 2.0, labels(7, 8, 9))(X, T, labels(5, 5, 5))
    torch.testing.assert_close(each, 2 * (X + 5) - (X + torch.tensor([7.0, 8.0, 9.0])[:, None, None, None]))
    with pytest.raises(ValueError, match=r"^null_cond has 2 rows, the condition 3$"):
        guided(Probe(), 2.0, labels(9, 9))(X, T, labels(5, 5, 5))


def test_tensor_conditions() -> None:
    cond = torch.full((3, 4), 5.0)
    for null in (torch.zeros(4), torch.zeros(1, 4), torch.zeros(3, 4, dtype=torch.int64)):
        torch.testing.assert_close(guided(Probe(), 2.0, null)(X, T, cond), 2 * (X + 5) - X)
    with pytest.raises(ValueError, match=r"^guidance over a Tensor needs null_cond$"):
        guided(Probe(), 2.0)(X, T, cond)
    with pytest.raises(ValueError, match=r"^null_cond has shape \(2, 4\), the condition \(3, 4\)$"):
        guided(Probe(), 2.0, torch.zeros(2, 4))(X, T, cond)


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


@pytest.mark.parametrize("wrong", [torch.ones(2), torch.ones(1), torch.ones(3, 1)])
def test_one_level_or_one_for_each_row(wrong: Tensor) -> None:
    message = f"t has shape {tuple(wrong.shape)}: give one level, or one for each of the 3 rows of x_t"
    for wrapped in (guided(Probe()), autoguided(Probe(), Probe())):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            wrapped(X, wrong, labels(5, 6, 7))


def test_outside_the_interval_guidance_is_off() -> None:
    cond, probe = labels(5, 5, 5), Probe()
    denoiser = guided(probe, scale=3.0, interval=(100, 600))
    for t in (10.0, 99.9, 600.1, 900.0):
        assert torch.equal(denoiser(X, torch.tensor(t), cond), X + 5)
    assert probe.rows == [3] * 4
    for t in (100.0, 500.0, 600.0):
        torch.testing.assert_close(denoiser(X, torch.tensor(t), cond), 3 * (X + 5) - 2 * (X - 1))
    x_t = torch.randn(3, 2, 2, 2)
    for rescale in (0.0, 0.7):
        mixed = guided(Probe(), 3.0, interval=(100, 600), rescale=rescale)(x_t, T, cond)
        assert torch.equal(mixed[[0, 2]], x_t[[0, 2]] + 5)
        torch.testing.assert_close(mixed[1], 3 * (x_t[1] + 5) - 2 * (x_t[1] - 1))


def test_integer_levels_and_open_intervals() -> None:
    steps, cond = torch.tensor([1, 500, 1000]), labels(5, 5, 5)
    everywhere = 2 * (X + 5) - (X - 1)
    torch.testing.assert_close(guided(Probe(), 2.0)(X, steps, cond), everywhere)
    torch.testing.assert_close(guided(Probe(), 2.0)(X, torch.tensor([0.0, 0.5, 80.0]), cond), everywhere)
    upwards = guided(Probe(), 2.0, interval=(500, math.inf))(X, steps, cond)
    torch.testing.assert_close(upwards, torch.cat([X[:1] + 5, everywhere[1:]]))
    lowest = guided(Probe(), 2.0, interval=(0, 1))(X, steps, cond)
    torch.testing.assert_close(lowest, torch.cat([everywhere[:1], X[1:] + 5]))
    one_level = guided(Probe(), 2.0, interval=(500, 500))(X, steps, cond)
    torch.testing.assert_close(one_level[1], everywhere[1])


def pointwise(spread: Tensor) -> Callable[..., Tensor]:
    """D = spread * x for conditional rows, 2 sin(x) + 1 for null ones: each row with a spread of its own."""

    def denoiser(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        with_cond = x_t * spread.repeat(len(x_t) // len(spread)).reshape(-1, 1, 1, 1)
        return torch.where(cond.null.reshape(-1, 1, 1, 1), 2 * torch.sin(x_t) + 1, with_cond)

    return denoiser


def test_rescale_gives_each_sample_its_spread_back() -> None:
    torch.manual_seed(1)
    x_t, spread = torch.randn(3, 4, 8, 8, dtype=torch.float64), torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    denoiser, cond = pointwise(spread), labels(1, 2, 3)
    plain = guided(denoiser, 4.0)(x_t, T, cond)
    whole = guided(denoiser, 4.0, rescale=1)(x_t, T, cond)
    std_cond = (x_t * spread.reshape(3, 1, 1, 1)).std((1, 2, 3))
    torch.testing.assert_close(whole.std((1, 2, 3)), std_cond, rtol=1e-12, atol=0)
    assert not torch.allclose(plain.std((1, 2, 3)), std_cond, rtol=0.1)
    # Lin et al. 2024, equations 15 and 16, as they stand there.
    for phi in (0.3, 0.7):
        rescaled = plain * (std_cond / plain.std((1, 2, 3))).reshape(3, 1, 1, 1)
        found = guided(denoiser, 4.0, rescale=phi)(x_t, T, cond)
        torch.testing.assert_close(found, phi * rescaled + (1 - phi) * plain, rtol=1e-12, atol=0)
    assert torch.equal(guided(denoiser, 4.0, rescale=0.0)(x_t, T, cond), plain)


def test_rescale_leaves_alone_what_has_no_spread() -> None:
    flat, single = torch.full((3, 2, 2, 2), 2.0), torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    for x_t in (flat, single):
        assert torch.equal(guided(Probe(), 3.0, rescale=0.7)(x_t, T, labels(5, 5, 5)), 3 * (x_t + 5) - 2 * (x_t - 1))


@pytest.mark.parametrize("rescale", [-0.01, 1.01, math.nan])
def test_a_rescale_that_is_none(rescale: float) -> None:
    with pytest.raises(UserError) as error:
        guided(Probe(), rescale=rescale)
    assert str(error.value) == f"the guidance rescale is {rescale:g}: it lies in [0, 1]; 0 switches it off"


WRAPPERS: list[Callable[..., Any]] = [
    lambda scale=2.0, interval=None: guided(Probe(), scale, interval=interval),
    lambda scale=2.0, interval=None: autoguided(Probe(), Probe(), scale, interval),
    lambda scale=2.0, interval=None: dress(Probe(), guidance_scale=scale, guidance_interval=interval),
    lambda scale=2.0, interval=None: dress(Probe(), weak=Probe(), weak_scale=scale, guidance_interval=interval),
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_scales_and_intervals_that_are_none(wrapper: Callable[..., Any]) -> None:
    for scale in (math.inf, -math.inf, math.nan):
        with pytest.raises(UserError) as error:
            wrapper(scale)
        assert str(error.value) == f"the guidance scale is {scale:g}: it is a finite number; 1 switches guidance off"
    for low, high in ((5, 2), (-0.5, 2), (math.nan, 1), (0, math.nan), (-2, -1)):
        with pytest.raises(UserError) as error:
            wrapper(interval=(low, high))
        message = f"the guidance interval runs from {low:g} to {high:g}: give (t_low, t_high), 0 <= t_low"
        assert str(error.value) == message
    wrapper(interval=(0.5, 1))


def test_autoguidance_formula() -> None:
    cond, strong, weak = labels(5, 6, 7), Probe(), Probe(offset=-3.0)
    conditional = Probe()(X, T, cond)
    for scale in (-1.0, 0.0, 0.5, 2.0, 3.5):
        found = autoguided(strong, weak, scale)(X, T, cond)
        torch.testing.assert_close(found, scale * conditional + (1 - scale) * (conditional - 3))
    assert (strong.rows, weak.rows) == ([3] * 5, [3] * 5)
    torch.testing.assert_close(autoguided(strong, weak)(X, torch.tensor(500)), 2 * X - (X - 3))


def test_autoguidance_of_scale_one_does_not_ask_the_weak_one() -> None:
    cond, strong, weak = labels(5, 6, 7), Probe(), Probe(offset=-3.0)
    expected = Probe()(X, T, cond)
    assert torch.equal(autoguided(strong, weak, 1)(X, T, cond), expected)
    switched = autoguided(strong, weak, 2.0, (100, 600))
    assert torch.equal(switched(X, torch.tensor(700.0), cond), expected)
    assert weak.rows == []
    torch.testing.assert_close(switched(X, T, cond), expected + torch.tensor([0.0, 3.0, 0.0]).reshape(3, 1, 1, 1))
    assert (strong.rows, weak.rows) == ([3, 3, 3], [3])


def network_denoiser(process: Process) -> NetworkDenoiser:
    return NetworkDenoiser(lambda x, time, cond: x, process, "x0")


def test_the_weak_denoiser_is_of_the_same_process() -> None:
    flow, cosine = network_denoiser(RectifiedFlow()), network_denoiser(VariancePreserving.cosine())
    autoguided(flow, network_denoiser(RectifiedFlow()))  # equal, though not the same object
    for strong, weak in ((flow, Probe()), (Probe(), flow), (Probe(), Probe())):
        autoguided(strong, weak)
    for wrapped in (flow, guided(flow), thresholded(guided(flow))):
        with pytest.raises(UserError) as error:
            autoguided(wrapped, clipped(cosine))
        assert str(error.value) == (
            f"the weak denoiser was trained on {cosine.process!r}, the one it guides on {flow.process!r}: "
            "use one process"
        )


def test_wrappers_show_what_they_wrap() -> None:
    probe, weak = Probe(), Probe()
    assert guided(probe).denoiser is probe
    assert autoguided(probe, weak).denoiser is probe
    assert autoguided(probe, weak).weak is weak


# Data whose guided x0_hat has a closed form: classes N(m_y, s^2 I) around centres.

LEVELS = [
    (VariancePreserving.linear(), torch.tensor([20.0, 400.0, 900.0], dtype=torch.float64)),
    (RectifiedFlow(), torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)),
    (VarianceExploding(), torch.tensor([0.1, 1.5, 20.0], dtype=torch.float64)),
]
CENTRES = torch.tensor([-2.0, 0.3, 1.5], dtype=torch.float64)


def rates(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    return process.signal_rate(t).reshape(-1, 1, 1, 1), process.noise_rate(t).reshape(-1, 1, 1, 1)


def posterior_mean(process: Process, x_t: Tensor, t: Tensor, mean: Tensor, var: float) -> Tensor:
    """E[x0 given x_t] for x0 ~ N(mean, var I)."""
    a, b = rates(process, t)
    return mean + a * var / (a**2 * var + b**2) * (x_t - a * mean)


class GaussianClasses:
    """The exact denoiser of N(centre_y, var I); a null row stands for N(0, null_var I)."""

    def __init__(self, process: Process, var: float, null_var: float = 1.0) -> None:
        self.process, self.var, self.null_var = process, var, null_var

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        with_cond = posterior_mean(self.process, x_t, t, CENTRES[cond.label].reshape(-1, 1, 1, 1), self.var)
        without = posterior_mean(self.process, x_t, t, torch.zeros(1), self.null_var)
        return torch.where(cond.null.reshape(-1, 1, 1, 1), without, with_cond)


def tilted(process: Process, x_t: Tensor, t: Tensor, scale: float, one: Any, other: Any) -> Tensor:
    """x0_hat of p^w q^(1-w) for Gaussians p, q of x0, each (mean, var): their densities at t multiply to one Gaussian.

    Precisions add to P, precision-weighted means to P mu; by Tweedie's formula a x0_hat = x_t - b^2 P (x_t - mu).
    """
    a, b = rates(process, t)
    precisions = [weight / (a**2 * var + b**2) for weight, (_, var) in zip((scale, 1 - scale), (one, other))]
    precision = precisions[0] + precisions[1]
    mu = a * (precisions[0] * one[0] + precisions[1] * other[0]) / precision
    return (x_t - b**2 * precision * (x_t - mu)) / a


@pytest.mark.parametrize(("process", "t"), LEVELS)
@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_guidance_between_gaussians_in_closed_form(process: Process, t: Tensor, scale: float) -> None:
    x_t, cond, centres = torch.randn(3, 2, 3, 3, dtype=torch.float64), labels(0, 1, 2), CENTRES.reshape(3, 1, 1, 1)
    expected = tilted(process, x_t, t, scale, (centres, 0.3), (0.0, 2.0))
    found = guided(GaussianClasses(process, 0.3, 2.0), scale)(x_t, t, cond)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("process", "t"), LEVELS)
def test_autoguidance_between_gaussians_in_closed_form(process: Process, t: Tensor) -> None:
    """The weak one believes in a wider spread, so guidance sharpens: its density is divided out."""
    x_t, cond, centres = torch.randn(3, 2, 3, 3, dtype=torch.float64), labels(0, 1, 2), CENTRES.reshape(3, 1, 1, 1)
    expected = tilted(process, x_t, t, 2.5, (centres, 0.3), (centres, 0.6))
    found = autoguided(GaussianClasses(process, 0.3), GaussianClasses(process, 0.6), 2.5)(x_t, t, cond)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("process", "t"), LEVELS)
def test_guidance_against_a_mixture_by_automatic_differentiation(process: Process, t: Tensor) -> None:
    """The null condition is the true one, all classes mixed; the guided score is the gradient of a log density."""
    centres, var, scale = CENTRES.reshape(3, 1), 0.3, 3.0
    a, b = (rate.reshape(-1, 1) for rate in rates(process, t))

    def log_density(x_t: Tensor, class_centres: Tensor) -> Tensor:
        """(b, classes) up to a constant: x_t ~ N(a centre, (a^2 var + b^2) I)."""
        apart = x_t[:, None, :] - a[:, None] * class_centres
        return -apart.square().sum(2) / (2 * (a**2 * var + b**2))

    def exact(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        a, b = (rate.reshape(-1, 1) for rate in rates(process, t))
        apart = x_t[:, None, :] - a[:, None] * centres
        share = torch.softmax(-apart.square().sum(2) / (2 * (a**2 * var + b**2)), dim=1)
        of_class = centres + a[:, None] * var / (a**2 * var + b**2)[:, None] * apart
        return torch.where(
            cond.null[:, None], (share[:, :, None] * of_class).sum(1), of_class[torch.arange(len(t)), cond.label]
        )

    x_t = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    own = log_density(x_t, centres).diagonal()
    of_all = log_density(x_t, centres).logsumexp(1)
    (score,) = torch.autograd.grad((scale * own + (1 - scale) * of_all).sum(), x_t)
    found = guided(exact, scale)(x_t.detach(), t, labels(0, 1, 2))
    torch.testing.assert_close(found, (x_t.detach() + b**2 * score) / a, rtol=1e-9, atol=1e-9)


# The order of composition.


def test_dress_puts_on_only_what_does_something() -> None:
    probe = Probe()
    assert dress(probe) is probe
    assert dress(probe, guidance_interval=(0, 1), guidance_rescale=0.5, null_cond=labels(1), percentile=90) is probe
    assert dress(probe, weak=Probe(), weak_scale=1.0) is probe
    assert dress(probe, guidance_scale=1, weak_scale=3.0) is probe


def chain(denoiser: Any) -> list[type]:
    """The types of a dressed denoiser, from the outside in."""
    found = [type(denoiser)]
    while hasattr(denoiser, "denoiser"):
        denoiser = denoiser.denoiser
        found.append(type(denoiser))
    return found


def test_the_order_of_composition_by_formula() -> None:
    torch.manual_seed(2)
    x_t, cond, null = torch.randn(3, 2, 4, 4, dtype=torch.float64) * 3, labels(1, 2, 3), labels(6)
    d_cond, d_null, d_weak = x_t + CLASS, x_t * 0.2 + 6, x_t * 0.5 - CLASS
    x1 = 4 * d_cond - 3 * d_null
    x1 = x1 * (0.6 * d_cond.std((1, 2, 3)) / x1.std((1, 2, 3)) + 0.4).reshape(3, 1, 1, 1)
    x2 = 1.5 * x1 - 0.5 * d_weak
    dressed = {
        kind: dress(
            strong,
            guidance_scale=4.0,
            null_cond=null,
            guidance_rescale=0.6,
            weak=feeble,
            weak_scale=1.5,
            threshold=kind,
            percentile=80.0,
            bound=0.9,
        )
        for kind in ("none", "dynamic", "static")
    }
    for kind, expected in (
        ("none", x2),
        ("dynamic", dynamic_thresholding(x2, 80.0, 0.9)),
        ("static", x2.clamp(-0.9, 0.9)),
    ):
        torch.testing.assert_close(dressed[kind](x_t, T, cond), expected)
    assert chain(dressed["none"])[:2] == [autoguided, guided]
    assert chain(dressed["dynamic"])[:3] == [thresholded, autoguided, guided]
    assert chain(dressed["static"])[:3] == [clipped, autoguided, guided]
    # Any other order is another function: these would tell.
    swapped = guided(autoguided(strong, feeble, 1.5), 4.0, null, rescale=0.6)
    assert not torch.allclose(swapped(x_t, T, cond), x2, rtol=0.01)
    early = autoguided(clipped(guided(strong, 4.0, null, rescale=0.6), 0.9), feeble, 1.5)
    assert not torch.allclose(early(x_t, T, cond), x2.clamp(-0.9, 0.9), rtol=0.01)


CLASS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)


def strong(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """x + label for labels up to 3, x/5 + label for the others."""
    label = cond.label.to(x_t.dtype).reshape(-1, 1, 1, 1)
    return torch.where(label > 3, x_t * 0.2 + label, x_t + label)


def feeble(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """x/2 - label."""
    return x_t * 0.5 - cond.label.to(x_t.dtype).reshape(-1, 1, 1, 1)


def test_what_dress_leaves_at_its_default() -> None:
    cond, x_t = labels(5, 5, 5), torch.randn(3, 2, 16, 16) * 2
    found = dress(Probe(), guidance_scale=2.0)
    torch.testing.assert_close(found(x_t, T, cond), 2 * (x_t + 5) - (x_t - 1))
    assert chain(found) == [guided, Probe]
    pointed = pointwise(torch.tensor([0.5, 1.0, 3.0]))  # where a rescale would show
    torch.testing.assert_close(dress(pointed, guidance_scale=2.0)(x_t, T, cond), guided(pointed, 2.0)(x_t, T, cond))
    found = dress(Probe(), guidance_scale=0.5)
    torch.testing.assert_close(found(x_t, T, cond), x_t + 2)
    torch.testing.assert_close(dress(Probe(), weak=Probe(-3.0))(x_t, T, cond), x_t + 8)
    torch.testing.assert_close(dress(Probe(), weak=Probe(-3.0), weak_scale=0.5)(x_t, T, cond), x_t + 3.5)
    assert torch.equal(dress(Probe(), threshold="dynamic")(x_t, T), dynamic_thresholding(x_t, 99.5, 1.0))
    assert torch.equal(dress(Probe(), threshold="static")(x_t, T), x_t.clamp(-1, 1))


def test_the_interval_holds_for_both_guidances() -> None:
    cond, weak = labels(5, 5, 5), Probe(-3.0)
    found = dress(Probe(), guidance_scale=2.0, guidance_interval=(100, 600), weak=weak, weak_scale=3.0)
    assert torch.equal(found(X, torch.tensor(700.0), cond), X + 5)
    torch.testing.assert_close(found(X, torch.tensor(100.0), cond), 3 * (X + 11) - 2 * (X + 2))


def test_dress_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="positional"):
        dress(Probe(), 2.0)  # type: ignore[misc]
    with pytest.raises(UserError) as error:
        dress(Probe(), threshold="dinamic")  # type: ignore[arg-type]
    assert str(error.value) == "unknown threshold 'dinamic': did you mean 'dynamic'?"
    for wrong in ({"percentile": 0.0}, {"bound": 0.0}, {"guidance_rescale": 2.0}):
        with pytest.raises(UserError):
            dress(Probe(), **wrong)  # type: ignore[arg-type]


def test_a_row_alone_is_the_row_in_a_batch_of_64() -> None:
    torch.manual_seed(3)
    convolutions = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]

    def network(convolution: nn.Conv2d) -> Callable[..., Tensor]:
        return lambda x, time, cond: convolution(x + torch.where(cond.null, -1.0, cond.label)[:, None, None, None])

    inner, weak = (NetworkDenoiser(network(c), VariancePreserving.cosine(), "v") for c in convolutions)
    x_t, t = torch.randn(64, 4, 8, 8), torch.arange(1.0, 961.0, 15.0)
    cond = labels(*range(64))
    for settings in ({"threshold": "dynamic"}, {"threshold": "static", "bound": 2.0}, {"guidance_rescale": 0.7}):
        denoiser = dress(inner, guidance_scale=3.0, guidance_interval=(100, 800), weak=weak, **settings)
        together = denoiser(x_t, t, cond)
        assert together.shape == x_t.shape
        for i in (0, 17, 40, 63):
            alone = denoiser(x_t[i : i + 1], t[i : i + 1], cond[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_x_t_and_condition_may_live_elsewhere_than_t_and_null() -> None:
    def denoiser(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return x_t * 2

    x_t = X.to("meta")
    for cond, null in ((labels(5, 6, 7).to("meta"), labels(9)), (torch.ones(3, 4, device="meta"), torch.ones(4))):
        assert autoguided(guided(denoiser, 3.0, null, rescale=0.5), denoiser)(x_t, T, cond).is_meta
