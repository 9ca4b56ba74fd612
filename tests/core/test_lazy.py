"""Loading without the collector's rounds: its state comes back, whatever happens."""

import gc

import pytest

from calotype.core.lazy import without_pauses


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    gc.enable()
    gc.unfreeze()


def test_the_collector_rests_inside_and_leaves_alone_what_was_loaded() -> None:
    gc.unfreeze()
    with without_pauses():
        assert not gc.isenabled()
        loaded = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(loaded)


def test_it_is_at_work_again_after_an_error() -> None:
    with pytest.raises(KeyError), without_pauses():
        raise KeyError
    assert gc.isenabled()


def test_one_that_rested_before_rests_after() -> None:
    gc.disable()
    with without_pauses():
        pass
    assert not gc.isenabled()
