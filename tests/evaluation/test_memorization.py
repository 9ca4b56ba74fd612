import pytest
import torch
from torch import Tensor

from calotype.evaluation import near_copies


def _vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


TRAINING, HELD_OUT = _vectors(400, 0), _vectors(400, 1)


def test_copies_are_found_with_their_originals() -> None:
    originals = torch.tensor([5, 77, 399, 0])
    found = near_copies(TRAINING[originals], TRAINING, HELD_OUT)
    assert (found.share, found.nearer) == (1.0, 1.0)
    assert found.neighbours.tolist() == originals.tolist()
    assert found.interval == (1.0, 1.0)
    torch.testing.assert_close(found.distances, torch.zeros(4), atol=1e-6, rtol=0)


def test_new_pictures_are_near_copies_as_often_as_held_out_ones() -> None:
    found = near_copies(_vectors(2000, 2), TRAINING, HELD_OUT)
    assert found.share == pytest.approx(0.05, abs=0.025)
    assert found.nearer == pytest.approx(0.5, abs=0.04)


def test_held_out_pictures_themselves_give_the_baseline() -> None:
    found = near_copies(HELD_OUT, TRAINING, HELD_OUT)
    assert found.share == pytest.approx(0.05)
    assert found.nearer == pytest.approx(0.5)


def test_a_mixture_gives_its_share() -> None:
    mixture = torch.cat([TRAINING[:300] + 0.01 * _vectors(300, 3), _vectors(700, 4)])
    found = near_copies(mixture, TRAINING, HELD_OUT)
    assert found.share == pytest.approx(0.3 + 0.7 * 0.05, abs=0.03)
    assert found.interval[0] < found.share < found.interval[1]


def test_pictures_unlike_any_are_no_copies() -> None:
    """All real pictures lie on one side of an axis, the samples far out on the other."""
    training = torch.cat([3 + TRAINING[:, :1].abs(), TRAINING[:, 1:]], dim=1)
    held_out = torch.cat([3 + HELD_OUT[:, :1].abs(), HELD_OUT[:, 1:]], dim=1)
    far = torch.zeros(3, 12)
    far[:, 0] = torch.tensor([-100.0, -200.0, -300.0])
    found = near_copies(far, training, held_out)
    assert found.share == 0.0
    assert found.nearer < 0.1


def test_brightness_and_contrast_do_not_hide_a_copy() -> None:
    """Distances are angles: a paler copy is as near as the copy itself."""
    centre = TRAINING.mean(dim=0)
    found = near_copies(centre + 0.3 * (TRAINING[:10] - centre), TRAINING, HELD_OUT)
    assert found.share == 1.0
    assert found.neighbours.tolist() == list(range(10))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        near_copies(TRAINING, TRAINING, TRAINING[:0])
