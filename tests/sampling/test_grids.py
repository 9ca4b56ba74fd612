"""Grids: from the noisiest trained level to clean, strictly down, for every number of steps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.sampling import timestep_grid
from calotype.sampling.grids import KINDS
from tests.process.families import FAMILIES
from tests.sampling.oracles import assert_close

TABLE = VariancePreserving.linear()
BY_KIND = pytest.mark.parametrize("kind", KINDS)


def test_tables_by_hand() -> None:
    assert timestep_grid(TABLE, 4, "trailing").tolist() == [1000, 750, 500, 250, 0]
    assert timestep_grid(TABLE, 3, "trailing").tolist() == [1000, 667, 333, 0]
    assert timestep_grid(TABLE, 4, "uniform").tolist() == [1000, 667, 334, 1, 0]
    # (sqrt(1000) + 1)^2 / 4 = 266.1; 1000 - 999 / 2^(1/3) = 207.1; 1000 - 999 (1/4)^(1/3) = 370.7
    assert timestep_grid(TABLE, 3, "quadratic").tolist() == [1000, 266, 1, 0]
    assert timestep_grid(TABLE, 3, "cube_root").tolist() == [1000, 207, 1, 0]
    assert timestep_grid(TABLE, 5, "cube_root").tolist() == [1000, 371, 207, 92, 1, 0]
    assert timestep_grid(TABLE, 1000).tolist() == list(range(1000, -1, -1))


def test_continuous_levels_by_hand() -> None:
    flow = RectifiedFlow()
    assert timestep_grid(flow, 4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    for kind, middle in (
        ("uniform", 0.5005),
        ("quadratic", (1 + math.sqrt(0.001)) ** 2 / 4),
        ("cube_root", 1 - 0.999 * 0.5 ** (1 / 3)),
    ):
        assert timestep_grid(flow, 3, kind).tolist() == pytest.approx([1, middle, 0.001, 0], rel=1e-12)  # type: ignore[arg-type]


def test_the_seeds_levels() -> None:
    """1 - u^(1/3) with u in steps of 1/K, the schedule the cube root comes from, but strictly down to the last one."""
    grid = timestep_grid(RectifiedFlow(), 71, "cube_root")
    steps = torch.arange(71, dtype=torch.float64) / 70
    assert_close(grid[:-1], 1 - 0.999 * steps ** (1 / 3))


def test_log_snr_grid_is_even_in_log_snr() -> None:
    log_snr = TABLE.log_snr(timestep_grid(TABLE, 20, "log_snr")[:-1])
    assert_close(log_snr.diff(), log_snr.diff().mean().expand(19))
    assert float(timestep_grid(TABLE, 20, "log_snr")[-2]) == pytest.approx(1)


def test_karras_grid_is_equation_5() -> None:
    process = VarianceExploding(0.002, 80)
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert_close(timestep_grid(process, 18)[:-1], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", [RectifiedFlow(), VariancePreserving.linear(zero_terminal_snr=True)])
def test_a_level_without_signal_counts_as_a_thousandth(process: Any) -> None:
    """log_snr -7 stands in for -inf at t_max, in both grids that are even in something infinite there."""
    end = float(process.log_snr(torch.tensor(process.t_min)))
    log_snr = process.log_snr(timestep_grid(process, 3, "log_snr"))
    assert log_snr[:3].tolist() == pytest.approx([-math.inf, (end - 7) / 2, end])
    sigma = torch.exp(-process.log_snr(timestep_grid(process, 3, "karras")[1:3]))
    middle = ((math.exp(7) ** (1 / 7) + math.exp(-end) ** (1 / 7)) / 2) ** 7
    assert sigma.tolist() == pytest.approx([middle, math.exp(-end)])


@pytest.mark.parametrize("shift", [1.5, 3])
def test_shift_on_a_flow_is_that_of_sd3(shift: float) -> None:
    grid = timestep_grid(RectifiedFlow(), 8, shift=shift)
    t = 1 - torch.arange(9, dtype=torch.float64) / 8
    assert_close(grid, shift * t / (1 + (shift - 1) * t), rtol=1e-14, atol=0)


def test_shift_by_hand() -> None:
    assert timestep_grid(RectifiedFlow(), 4, shift=3).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0], rel=1e-14)
    assert timestep_grid(TABLE, 4, shift=3).tolist() == [1000, 900, 750, 500, 0]
    # 1000 (1 - i/7) is shifted before it is rounded: 2 * 142.857 / 1.142857 = 250 exactly, 2 * 143 / 1.143 = 250.2
    assert timestep_grid(TABLE, 7, shift=2).tolist() == [1000, 923, 833, 727, 600, 444, 250, 0]
    sigma = timestep_grid(VarianceExploding(1, 81), 2, "uniform", shift=5)
    assert sigma.tolist() == pytest.approx([81, 5 / (1 + 4 / 81), 0])


@BY_KIND
def test_a_shift_of_one_is_none(kind: Any) -> None:
    for process in (TABLE, RectifiedFlow(), VarianceExploding()):
        assert torch.equal(timestep_grid(process, 9, kind, shift=1), timestep_grid(process, 9, kind))


def check(process: Any, grid: Tensor, num_steps: int) -> None:
    assert grid.dtype == torch.float64
    assert grid.shape == (num_steps + 1,)
    assert bool((grid.diff() < 0).all())
    assert float(grid[0]) == process.t_max
    assert float(grid[-2]) >= process.t_min * (1 - 1e-9)
    assert float(grid[-1]) == 0


@BY_KIND
@pytest.mark.parametrize("name", FAMILIES)
def test_strictly_decreasing_from_t_max_to_clean(name: str, kind: Any) -> None:
    process = FAMILIES[name]
    for num_steps in (1, 2, 3, 4, 7, 20, 31, 70, 250, 333, 334, 500, 999, 1000):
        check(process, timestep_grid(process, num_steps, kind), num_steps)
        check(process, timestep_grid(process, num_steps, kind, shift=3), num_steps)


def test_every_k_of_the_default() -> None:
    for num_steps in range(1, 1001):
        grid = timestep_grid(TABLE, num_steps)
        check(TABLE, grid, num_steps)
        assert torch.equal(grid, grid.round())


@BY_KIND
def test_every_k_of_every_kind(kind: Any) -> None:
    for num_steps in range(1, 1001):
        grid = timestep_grid(TABLE, num_steps, kind)
        assert bool((grid.diff() < 0).all())
        assert grid.shape == (num_steps + 1,)


def test_integers_only_where_they_leave_the_levels_distinct() -> None:
    """The seed's grid ended .0096, .0100: it crowds its last levels, so a table is visited between its entries."""
    assert torch.equal(timestep_grid(TABLE, 100, "cube_root"), timestep_grid(TABLE, 100, "cube_root").round())
    crowded = timestep_grid(TABLE, 1000, "cube_root")
    assert float(crowded[-3]) == pytest.approx(1000 - 999 * (998 / 999) ** (1 / 3))
    for kind in ("log_snr", "karras"):
        assert not bool((timestep_grid(TABLE, 5, kind)[1:4] % 1 == 0).any())  # type: ignore[arg-type]


def test_more_steps_than_levels_fall_between_them() -> None:
    grid = timestep_grid(VariancePreserving.linear(10, 0.01, 0.9), 25)
    assert_close(grid[:-1], torch.linspace(10, 1, 25, dtype=torch.float64))


def test_trailing_levels_stay_in_the_trained_range() -> None:
    process = VariancePreserving.angle()
    grid = timestep_grid(process, 1000)
    assert float(grid[-2]) == pytest.approx(process.t_min)
    assert_close(grid[:-1], torch.linspace(0.999, 0.002, 1000, dtype=torch.float64))


def test_defaults_of_the_families() -> None:
    assert torch.equal(timestep_grid(RectifiedFlow(), 9), timestep_grid(RectifiedFlow(), 9, "trailing"))
    assert torch.equal(timestep_grid(VarianceExploding(), 9), timestep_grid(VarianceExploding(), 9, "karras"))


def test_a_process_of_ones_own_needs_only_its_range() -> None:
    class Mine:
        t_max, t_min = 2.0, 0.5

    assert timestep_grid(Mine(), 3).tolist() == pytest.approx([2, 4 / 3, 2 / 3, 0])
    assert timestep_grid(Mine(), 8).tolist()[-2] == 0.5


@pytest.mark.parametrize("num_steps", [0, -3, 2.5, 20.0, True, "20", None, math.nan])
def test_a_number_of_steps_that_is_none(num_steps: Any) -> None:
    with pytest.raises(UserError, match=r"^num_steps is .*: a sampler needs a whole number of at least 1 step$"):
        timestep_grid(RectifiedFlow(), num_steps)


def test_an_unknown_kind_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^unknown grid 'trailling': did you mean 'trailing'"):
        timestep_grid(RectifiedFlow(), 5, "trailling")  # type: ignore[arg-type]


@pytest.mark.parametrize("shift", [0.999, 0, -2, math.nan, math.inf])
def test_a_shift_that_is_none(shift: float) -> None:
    with pytest.raises(UserError, match=f"^shift is {shift!r}: give a number of at least 1, where 1 shifts nothing$"):
        timestep_grid(RectifiedFlow(), 5, shift=shift)


def test_levels_that_float64_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^5 steps with shift 1e\+30 leave levels between t = 1000 and 0 that are equal"
    ):
        timestep_grid(TABLE, 5, shift=1e30)
    with pytest.raises(UserError, match="equal: ask for fewer steps or a smaller shift"):
        timestep_grid(RectifiedFlow(), 2, shift=1e30)
