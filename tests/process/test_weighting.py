"""Loss weights against what they are derived from: errors of x0, divergences of posteriors, slopes of the SNR."""

import math
import re
from typing import get_args

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process import (
    Parameterization,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    Weighting,
    add_noise,
    check_weighting,
    eps_from_x0,
    loss_weight,
    posterior,
    target,
)
from tests.process.families import FAMILIES, close, float64, read

ALL = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
PARAMETERIZATIONS: tuple[Parameterization, ...] = get_args(Parameterization)
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


def inner_levels(process: Process) -> Tensor:
    t = float64(0.1, 0.3, 0.7, 0.9) * process.t_max
    return t if process.num_train_steps is None else t.long()


def test_min_snr_by_hand() -> None:
    process = VarianceExploding()  # SNR = 1/t^2
    t = float64(0.1, 0.5, 1, 2)
    close(loss_weight(process, "min-snr", "x0", t), float64(5, 4, 1, 0.25))
    close(loss_weight(process, read("min-snr"), "x0", t, gamma=2), float64(2, 2, 1, 0.25))
    close(loss_weight(process, "min-snr", "eps", t), float64(0.05, 1, 1, 1))
    close(loss_weight(process, "min-snr", "v", t), float64(5, 4, 1, 0.25) / (t + 1 / t) ** 2)
    with pytest.raises(TypeError):
        loss_weight(process, "min-snr", "x0", t, 5.0)  # type: ignore[misc]


def test_edm_by_hand() -> None:
    t = float64(0.5, 1, 2)
    close(loss_weight(VarianceExploding(), "edm", "x0", t), float64(5, 2, 1.25))
    close(loss_weight(RectifiedFlow(), "edm", "x0", t / 4), float64(50, 10, 2))
    for process in FAMILIES.values():
        close(loss_weight(process, "edm", "edm", inner_levels(process)), float64(1, 1, 1, 1))


def test_constant_is_one() -> None:
    for process in FAMILIES.values():
        for parameterization in PARAMETERIZATIONS:
            t = torch.tensor([[process.t_min, process.t_max]])
            assert torch.equal(loss_weight(process, "constant", parameterization, t), torch.ones(1, 2).double())


def test_elbo_of_continuous_levels_is_the_slope_of_the_snr() -> None:
    t = float64(0.002, 0.25, 0.5, 0.999)
    close(loss_weight(RectifiedFlow(), "elbo", "x0", t), (1 - t) / t**3)
    close(loss_weight(VariancePreserving.angle(), "elbo", "x0", t), t**-3, rtol=1e-9)
    close(loss_weight(VarianceExploding(), "elbo", "x0", t), t**-3)


@ALL
def test_elbo_is_the_divergence_of_two_posteriors(process: Process) -> None:
    """KL of q(x_s given x_t, x0) from the same with x0_hat = x0 + 1: (difference of means)^2 / (2 variance)."""
    t = inner_levels(process)
    h = 1 if process.num_train_steps is not None else 1e-5 * t
    zero = torch.zeros(4, 1, dtype=torch.float64)
    mean, var = posterior(process, zero, zero, t, t - h)
    mean_hat, _ = posterior(process, zero + 1, zero, t, t - h)
    divergence = ((mean_hat - mean) ** 2 / (2 * var))[:, 0] / h
    close(loss_weight(process, "elbo", "x0", t), divergence, rtol=1e-8 if process.num_train_steps else 1e-4)


def test_elbo_of_the_first_level_of_a_table_is_the_decoder() -> None:
    """-ln N(x0; x0_hat, b_1^2) grows by 1/(2 b_1^2) where x0_hat is off by 1."""
    process = VariancePreserving.linear(3, 0.36, 0.5)
    weights = loss_weight(process, read("elbo"), "x0", torch.tensor([1, 2]))
    snr = 0.64 / 0.36, 0.64 * 0.57 / (1 - 0.64 * 0.57)
    close(weights, float64(1 / (2 * 0.36), (snr[0] - snr[1]) / 2))


@ALL
@pytest.mark.parametrize("weighting", ["min-snr", "elbo", "edm"])
def test_the_weighted_error_is_the_same_in_every_parameterization(process: Process, weighting: Weighting) -> None:
    """w |F_hat - F|^2 = w_x0 |x0_hat - x0|^2, where F_hat says x0_hat at the same x_t."""
    t = inner_levels(process)
    x0, eps, x0_hat = torch.randn(3, 4, 2, dtype=torch.float64)
    x_t = add_noise(process, x0, t, eps)
    eps_hat = eps_from_x0(process, x_t, t, x0_hat)
    of_x0 = loss_weight(process, weighting, "x0", t)[:, None] * (x0_hat - x0) ** 2
    for name in PARAMETERIZATIONS:
        error = target(name, process, x0_hat, eps_hat, t) - target(name, process, x0, eps, t)
        close(loss_weight(process, weighting, name, t)[:, None] * error**2, of_x0, rtol=1e-6)


@ALL
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_are_finite_wherever_training_goes(process: Process, weighting: Weighting) -> None:
    ends = torch.tensor([process.t_min, process.t_max])  # float32: t_max may lie a rounding above itself
    for parameterization in PARAMETERIZATIONS:
        if parameterization != "eps" or process.signal_rate(ends[1]) > 0:
            weight = loss_weight(process, weighting, parameterization, ends)
            assert weight.isfinite().all()
            assert (weight >= 0).all()
            assert weight.dtype == torch.float64


def test_the_noisiest_level_in_single_precision_keeps_its_slope() -> None:
    t = torch.tensor(0.999)
    assert float(t) > VariancePreserving.angle().t_max
    close(loss_weight(VariancePreserving.angle(), "elbo", "x0", t), torch.tensor(0.999**-3).double(), rtol=1e-6)


def test_weights_stand_outside_every_graph() -> None:
    t = float64(0.5).requires_grad_()
    assert not loss_weight(RectifiedFlow(), "elbo", "x0", t.detach()).requires_grad
    with torch.no_grad():
        close(loss_weight(RectifiedFlow(), "elbo", "x0", t), float64(4))
    assert t.grad is None


@pytest.mark.parametrize("t", [2.25, 2.75, math.nan])
def test_a_table_has_no_weights_between_its_levels(t: float) -> None:
    said = re.escape(f"loss weights of a table are defined at whole t, not [3.0, {t}]")
    for weighting in WEIGHTINGS:
        with pytest.raises(ValueError, match=f"^{said}$"):
            loss_weight(VariancePreserving.linear(), weighting, "v", float64(3, t))


def test_unknown_names_are_refused() -> None:
    t, process = torch.tensor([1]), VariancePreserving.linear()
    with pytest.raises(UserError, match=r"^unknown weighting 'minsnr': did you mean 'min-snr'\?$"):
        loss_weight(process, "minsnr", "v", t)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^unknown weighting 'minsnr': did you mean 'min-snr'\?$"):
        check_weighting("minsnr", "v", process)
    with pytest.raises(UserError, match="unknown parameterization 'w'"):
        loss_weight(process, "constant", "w", t)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown parameterization 'w'"):
        check_weighting("elbo", "w", process)
    with pytest.raises(UserError, match="unknown noise density 'unifrom'"):
        check_weighting("constant", "v", process, "unifrom")
    with pytest.raises(UserError, match="eps-prediction"):
        check_weighting("constant", "eps", RectifiedFlow())


def test_the_elbo_wants_uniform_levels() -> None:
    said = (
        "the ELBO is an expectation over uniform levels, but training draws them {}: "
        "choose the uniform density or another weighting"
    )
    with pytest.raises(UserError, match=f"^{said.format('log-normal')}$"):
        check_weighting(read("elbo"), "edm", VarianceExploding())
    for density in ("logit-normal", "folded-normal"):
        with pytest.raises(UserError, match=f"^{said.format(density)}$"):
            check_weighting("elbo", "v", VariancePreserving.linear(), density)
    check_weighting("elbo", "edm", VarianceExploding(), read("uniform"))
    check_weighting("elbo", "v", VariancePreserving.linear())
    for weighting in set(WEIGHTINGS) - {"elbo"}:
        check_weighting(weighting, "edm", VarianceExploding())
