"""On Gaussian data, where the answer is known, every solver's error shrinks at its order."""

import importlib.util
import re
from pathlib import Path

import pytest

from calotype.sampling import SAMPLERS
from tests.sampling.oracles import COUNTS, PROCESSES, SECOND_ORDER, measured_orders, slope

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d+\.\d+(?:e[-+]\d+)?")


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], list[float]]:
    return measured_orders()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", PROCESSES)
def test_error_shrinks_at_the_order(measured: dict[tuple[str, str], list[float]], family: str, name: str) -> None:
    found = measured[family, name]
    assert slope(*found[-2:]) == pytest.approx(2 if name in SECOND_ORDER else 1, abs=0.1)
    assert found == sorted(found, reverse=True)
    assert len(found) == len(COUNTS)


def test_the_table_in_the_documentation_is_what_is_measured(measured: dict[tuple[str, str], list[float]]) -> None:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    made, written = make_tables.orders(measured), (DOCS / "orders.md").read_text()
    assert NUMBER.sub("#", made) == NUMBER.sub("#", written)
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (made, written)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.006)
