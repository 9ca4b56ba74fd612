"""The nearest training picture of what the page shows."""

from __future__ import annotations

import pytest
import torch

from calotype.images.pixels import to_float
from calotype.inspection.report import neighbours
from tests.inspection.scores.test_roles import picture_set


def test_a_copy_of_what_was_asked_for_is_found_in_a_set_too_large_to_look_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "MOST_COMPARED", 20)
    pictures = picture_set(200, 40)
    pictures.pixels.copy_(torch.randint(256, (200, 3, 8, 8), generator=torch.Generator().manual_seed(0)))
    asked = [77, 143]
    found = neighbours.find_neighbours(to_float(pictures.pixels[asked]), pictures, asked)
    assert [(one.row, one.copy) for one in found] == [(77, True), (143, True)]
    assert neighbours.find_neighbours(to_float(pictures.pixels[asked]), picture_set(12, 4), asked) == []
