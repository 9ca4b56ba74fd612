"""Precision, recall, density and coverage by brute force, and the jackknife by leaving every picture out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calotype.evaluation import support
from calotype.evaluation.support import _scores

NAMES = ("precision", "recall", "density", "coverage")


def _vectors(count: int, seed: int, dim: int = 4) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _values(samples: Tensor, real: Tensor, k: int) -> list[float]:
    found = support(samples, real, neighbours=k)
    return [getattr(found, name).value for name in NAMES]


def _brute(samples: Tensor, real: Tensor, k: int) -> list[float]:
    def reach(side: Tensor, i: int) -> float:
        return sorted(float((side[i] - side[j]).norm()) for j in range(len(side)) if j != i)[k - 1]

    def holds(side: Tensor, i: int, point: Tensor) -> bool:
        return float((side[i] - point).norm()) < reach(side, i)

    in_real = [[holds(real, i, sample) for i in range(len(real))] for sample in samples]
    in_samples = [any(holds(samples, i, picture) for i in range(len(samples))) for picture in real]
    return [
        sum(any(row) for row in in_real) / len(samples),
        sum(in_samples) / len(real),
        sum(map(sum, in_real)) / k / len(samples),
        sum(any(column) for column in zip(*in_real)) / len(real),
    ]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_scores_by_brute_force(k: int) -> None:
    samples, real = 1.2 * _vectors(17, 0), _vectors(23, 1)
    assert _values(samples, real, k) == pytest.approx(_brute(samples, real, k))


def test_the_jackknife_leaves_every_picture_out() -> None:
    samples, real, k = 1.2 * _vectors(20, 0), _vectors(15, 1), 3
    distances = torch.cdist(samples, real)
    precision, density, coverage = _scores(real, distances.T, k)
    recall = _scores(samples, distances, k)[0]

    def without(side: Tensor, i: int) -> Tensor:
        return torch.cat([side[:i], side[i + 1 :]])

    fewer_real = torch.tensor([_values(samples, without(real, i), k) for i in range(len(real))])
    fewer_samples = torch.tensor([_values(without(samples, i), real, k) for i in range(len(samples))])
    for column, score in enumerate((precision, recall, density, coverage)):
        ours, theirs = (fewer_samples, fewer_real) if score is recall else (fewer_real, fewer_samples)
        torch.testing.assert_close(score.without_centre.float(), ours[:, column])
        torch.testing.assert_close(score.without_query.float(), theirs[:, column])


def test_what_each_score_sees() -> None:
    """Two places with pictures: samples in one of them only are precise but miss half; samples afar are nothing."""
    places = torch.cat([_vectors(60, 0), _vectors(60, 1) + 100])
    half = support(_vectors(120, 2), places)
    assert half.precision.value > 0.8
    assert half.recall.value <= 0.5
    assert 0.3 < half.coverage.value <= 0.5
    assert half.coverage.high < 0.7
    afar = support(_vectors(120, 2) - 1000, places)
    assert [getattr(afar, name).value for name in NAMES] == [0, 0, 0, 0]
    assert afar.precision.low == 0 < afar.precision.high < 0.1
    assert afar.density.low == afar.density.high == 0


def test_far_from_the_origin_nothing_changes() -> None:
    samples, real = _vectors(40, 0), _vectors(40, 1)
    assert _values(samples + 1e6, real + 1e6, 5) == pytest.approx(_values(samples, real, 5), abs=0.03)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 pictures a side"):
        support(_vectors(6, 0), _vectors(20, 1))
