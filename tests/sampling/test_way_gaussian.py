"""The whole way from the prior to t = 0, through every part: the samples have the mean and covariance of the data."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.network import NetworkDenoiser
from calotype.process import Process, VariancePreserving
from calotype.sampling import SAMPLERS, alpha_step, ddim_step, dpmpp_2m_step, euler_step, sample, timestep_grid
from calotype.sampling.grids import KINDS
from calotype.sampling.levels import estimate, from_to
from tests.sampling.oracles import (
    DATA,
    PROCESSES,
    SECOND_ORDER,
    ExactDenoiser,
    assert_close,
    carried,
    exact_network,
    propagated_deviation,
    remembering,
    slope,
)

FAMILIES: dict[str, Process] = {**PROCESSES, "zero-terminal": VariancePreserving.linear(zero_terminal_snr=True)}
PARAMETERIZATIONS = ("eps", "x0", "v", "flow", "edm")
IN_SIGMA = ("log_snr", "karras")
# Relative to the larger variance, at 40 steps; what is exact in the limit is the matter of test_way_orders.
FIRST = {"uniform": 0.2, "trailing": 0.2, "quadratic": 0.2, "cube_root": 0.44, "log_snr": 0.32, "karras": 0.48}
SECOND = {"uniform": 0.3, "trailing": 0.06, "quadratic": 0.07, "cube_root": 0.41, "log_snr": 0.05, "karras": 0.28}


def meaningful_grids(family: str, name: str) -> tuple[str, ...]:
    """All, save that levels even in t skip the scale of the data where t is sigma, and where Heun steps in sigma."""
    return IN_SIGMA if family == "exploding" or (name == "heun" and family != "flow") else KINDS


def combinations() -> list[tuple[str, str, str, str]]:
    """Every family x parameterisation x sampler, with grids taken in turn; eps where the first level has a signal."""
    found = []
    for f, family in enumerate(FAMILIES):
        for i, parameterization in enumerate(PARAMETERIZATIONS):
            if parameterization == "eps" and family in ("flow", "zero-terminal"):
                continue
            for j, name in enumerate(SAMPLERS):
                grids = meaningful_grids(family, name)
                found.append((family, parameterization, name, grids[(f + i + j) % len(grids)]))
    return found


def test_there_are_enough_combinations() -> None:
    found = combinations()
    assert len(set(found)) == len(found) == 231
    assert all(len({kind for _, _, sampler, kind in found if sampler == name}) >= 5 for name in SAMPLERS)
    assert {(family, kind) for family, _, _, kind in found} == {
        (family, kind) for family in FAMILIES for kind in meaningful_grids(family, "ddim")
    }


@pytest.mark.parametrize(("family", "parameterization", "name", "kind"), combinations())
def test_mean_and_covariance_of_the_data(family: str, parameterization: Any, name: str, kind: Any) -> None:
    process = remembering(FAMILIES[family])
    denoiser = NetworkDenoiser(exact_network(DATA, process, parameterization), process, parameterization)
    mean, covariance = carried(SAMPLERS[name].step, denoiser, process, timestep_grid(process, 40, kind), DATA)
    assert_close(mean, DATA.mean, rtol=1e-7, atol=1e-7)  # the mean has no solver error; a network's time is float32
    bound = SECOND if name in SECOND_ORDER else FIRST
    assert float((covariance - DATA.covariance).abs().max() / DATA.covariance.max()) < bound[kind]


@pytest.mark.parametrize("step", [alpha_step, ddim_step, euler_step, dpmpp_2m_step])
@pytest.mark.parametrize("family", ["linear", "cosine", "angle", "zero-terminal"])
def test_unit_data_only_turn(family: str, step: Any) -> None:
    """On data N(0, I) a variance-preserving x_t has unit variance; with cos(phi) = a, a step is x cos(phi - phi_s)."""
    process = FAMILIES[family]
    t = timestep_grid(process, 7, "uniform")[:-1]
    phi = torch.arccos(process.signal_rate(t))
    x = torch.tensor([[1.5]], dtype=torch.float64)
    for i in range(6):
        found, _ = step(ExactDenoiser(process, deviation=1.0), process, x, t[i], t[i + 1])
        assert_close(found, x * torch.cos(phi[i] - phi[i + 1]), rtol=1e-12, atol=0)
        x = found


def mixed_step(denoiser: Any, process: Any, x_t: Tensor, t: Tensor, t_next: Tensor, **rest: Any) -> Any:
    """Trained on x_t = sqrt(1 - t^2) x0 + t eps, but stepped as if it were (1 - t) x0 + t eps."""
    now, then = from_to(process, t, t_next)
    x0_hat = estimate(denoiser, x_t, t, rest["cond"])
    return ((now.b - then.b) * x0_hat + then.b * x_t) / now.b, None


@pytest.mark.parametrize(
    ("step", "mean", "deviation"), [(alpha_step, 0.294, 0.491), (mixed_step, 0.191, 0.432)], ids=["own", "mixed"]
)
def test_the_step_of_another_process_is_wrong_and_says_nothing(step: Any, mean: float, deviation: float) -> None:
    """Data N(.3, .5^2), an exact denoiser, 70 steps from N(0, 1): only the process's own step gives them back."""
    process = VariancePreserving.angle()
    denoiser = ExactDenoiser(process, mean=0.3)
    x_T = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    low, high = sample(denoiser, process, x_T, timestep_grid(process, 70, "uniform"), step=step)
    assert float(low) == pytest.approx(mean, abs=0.001)
    assert float(high - low) == pytest.approx(deviation, abs=0.001)


def test_the_seeds_schedule_takes_most_of_its_way_in_one_step() -> None:
    """70 cube-root levels of the angle start .999, .756: where data is N(0, 1), a spread of .775 is what remains."""
    process = VariancePreserving.angle()
    spreads = {}
    for kind in ("cube_root", "trailing"):
        grid = timestep_grid(process, 70, kind)  # type: ignore[arg-type]
        spreads[kind] = propagated_deviation(alpha_step, ExactDenoiser(process, deviation=1.0), grid)
    assert spreads == pytest.approx({"cube_root": 0.775, "trailing": 0.974}, abs=0.001)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", PROCESSES)
def test_the_landing_by_itself(family: str, name: str) -> None:
    """From the exact q(x_t) one step to t = 0 gives var(x0_hat) = d^2 / (1 + (sigma/d)^2): off by sigma^2."""
    process = PROCESSES[family]
    denoiser = ExactDenoiser(process)
    levels = process.t_from_log_snr(-torch.tensor([0.02, 0.01], dtype=torch.float64).log())
    lost = []
    for t in levels:
        landed = propagated_deviation(SAMPLERS[name].step, denoiser, torch.stack([t, torch.zeros_like(t)]))
        sigma = float(process.noise_rate(t) / process.signal_rate(t))
        assert landed**2 == pytest.approx(0.25 / (1 + (sigma / 0.5) ** 2), rel=1e-12)
        lost.append(0.25 - landed**2)
    assert slope(*lost) == pytest.approx(2, abs=0.01)
