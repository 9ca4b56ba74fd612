"""Grids: from the noisiest trained level to clean, strictly down, for every number of steps."""

import pytest
import torch

from calotype.core.errors import UserError
from calotype.process import RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.sampling import timestep_grid
from calotype.sampling.grids import KINDS
from tests.process.families import FAMILIES


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("name", FAMILIES)
def test_strictly_decreasing_from_t_max_to_clean_for_every_k(name: str, kind: None) -> None:
    process = FAMILIES[name]
    for num_steps in (*range(1, 60), *range(60, 1000, 47), 997, 998, 999, 1000):
        grid = timestep_grid(process, num_steps, kind)
        assert grid.dtype == torch.float64
        assert grid.shape == (num_steps + 1,)
        assert bool((grid.diff() < 0).all())
        assert float(grid[0]) == process.t_max
        assert float(grid[-1]) == 0
        assert float(process.log_snr(grid[:1])) < float(process.log_snr(grid[-2:-1])) or num_steps == 1


def test_every_k_of_the_default() -> None:
    process = VariancePreserving.linear()
    for num_steps in range(1, 1001):
        grid = timestep_grid(process, num_steps)
        assert bool((grid.diff() < 0).all())
        assert torch.equal(grid, grid.round())
        assert float(grid[-2]) >= 1


def test_tables_by_hand() -> None:
    process = VariancePreserving.linear()
    assert timestep_grid(process, 4, "trailing").tolist() == [1000, 750, 500, 250, 0]
    assert timestep_grid(process, 3, "trailing").tolist() == [1000, 667, 333, 0]
    assert timestep_grid(process, 4, "uniform").tolist() == [1000, 667, 334, 1, 0]
    assert timestep_grid(process, 1000).tolist() == list(range(1000, -1, -1))
    assert timestep_grid(RectifiedFlow(), 4).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_log_snr_grid_is_even_in_log_snr() -> None:
    process = VariancePreserving.linear()
    log_snr = process.log_snr(timestep_grid(process, 20, "log_snr")[:-1])
    torch.testing.assert_close(log_snr.diff(), log_snr.diff().mean().expand(19))


def test_karras_grid_is_equation_5() -> None:
    process = VarianceExploding(0.002, 80)
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(timestep_grid(process, 18)[:-1], expected)


def test_more_steps_than_levels_fall_between_them() -> None:
    grid = timestep_grid(VariancePreserving.linear(10, 0.01, 0.9), 25)
    assert bool((grid.diff() < 0).all())
    assert float(grid[-2]) == 1


def test_bad_requests_are_refused() -> None:
    for num_steps in (0, -3, 2.5, True):
        with pytest.raises(UserError, match="whole number"):
            timestep_grid(RectifiedFlow(), num_steps)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="did you mean 'trailing'"):
        timestep_grid(RectifiedFlow(), 5, "trailling")  # type: ignore[arg-type]
