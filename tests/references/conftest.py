"""The reference in both precisions."""

import pytest

from tests.references.reference import Reference


@pytest.fixture(params=["double", "shipped"])
def reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reference:
    """Their schedulers, in double precision and with the float32 tables they are shipped with."""
    chosen = Reference(request.param)
    return chosen.double(monkeypatch) if request.param == "double" else chosen


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Reference:
    """Their schedulers in double precision."""
    return Reference("double").double(monkeypatch)
