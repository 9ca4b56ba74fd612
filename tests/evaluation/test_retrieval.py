import math

import pytest
import torch
from torch import Tensor

from calotype.evaluation import own_concept
from calotype.evaluation.similarity import centred_cosine, share_interval


def _vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _circle(count: int) -> Tensor:
    angles = torch.arange(count) * 2 * math.pi / count
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_perfect_samples() -> None:
    gallery = _vectors(50, 16)
    own = torch.tensor([3, 3, 7, 7, 11, 11])
    score = own_concept(gallery[own], own, gallery)
    assert (score.top1, score.top5) == (1.0, 1.0)
    assert score.interval1 == score.interval5 == (1.0, 1.0)
    assert (score.num_prompts, score.num_samples, score.gallery_size) == (3, 6, 50)
    assert score.chance5 == pytest.approx(0.1)


def test_ranks_on_a_circle() -> None:
    """Turned by k and a half places, a sample's own picture comes at place 2k + 1 or 2k + 2, counted from 1."""
    gallery = _circle(24)
    for shift, top1, top5 in ((0.4, 1, 1), (0.6, 0, 1), (2.4, 0, 1), (2.6, 0, 0)):
        angle = torch.tensor(shift * 2 * math.pi / 24)
        turned = gallery @ torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
        score = own_concept(turned, torch.arange(24), gallery)
        assert (score.top1, score.top5) == (top1, top5), shift


def test_samples_that_say_nothing_score_nothing() -> None:
    gallery = torch.ones(20, 8)
    score = own_concept(torch.ones(4, 8), torch.arange(4), gallery)
    assert (score.top1, score.top5) == (0.0, 0.0)


def test_samples_of_chance_score_chance() -> None:
    score = own_concept(_vectors(2000, 32, seed=1), torch.arange(2000) % 100, _vectors(100, 32))
    assert score.top5 == pytest.approx(score.chance5, abs=0.02)
    assert score.top1 == pytest.approx(0.01, abs=0.01)
    assert score.interval5[0] < score.chance5 < score.interval5[1]


def test_what_all_pictures_share_does_not_count() -> None:
    gallery, own = _vectors(60, 16), torch.arange(60)
    samples = gallery + _vectors(60, 16, seed=1)
    plain, shifted = own_concept(samples, own, gallery), own_concept(samples + 300, own, gallery + 300)
    assert 0.2 < plain.top1 < 1
    assert (plain.top1, plain.top5) == (shifted.top1, shifted.top5)


def test_the_interval_resamples_prompts_not_samples() -> None:
    """Four samples that share a prompt's fate are one piece of evidence: the interval is twice as wide."""
    gallery = _vectors(100, 16)
    hits = torch.arange(100) % 2 == 0
    once = torch.where(hits[:, None], gallery, -gallery)
    wide = own_concept(once.repeat_interleave(4, 0), torch.arange(100).repeat_interleave(4), gallery)
    assert wide.top1 == pytest.approx(0.5)
    assert wide.interval1 == own_concept(once, torch.arange(100), gallery).interval1
    low, high = wide.interval1
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 100), rel=0.1)


def test_intervals_are_those_of_the_normal_law_and_reproducible() -> None:
    shares = (torch.arange(400) % 4 == 0).double()
    low, high = share_interval(shares)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)
    assert share_interval(shares) == (low, high)


def test_centred_cosine_by_hand() -> None:
    likeness = centred_cosine(
        torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([[5.0, 1.0], [1.0, 9.0], [-3.0, 1.0]]), torch.ones(2)
    )
    assert likeness.tolist() == [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


def test_wrong_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="one own index per sample"):
        own_concept(_vectors(2, 4), torch.tensor([0]), _vectors(5, 4))
    with pytest.raises(ValueError, match="must lie in the gallery of 5"):
        own_concept(_vectors(2, 4), torch.tensor([0, 5]), _vectors(5, 4))
    with pytest.raises(ValueError, match="vectors"):
        own_concept(_vectors(1, 4), torch.tensor([0]), _vectors(5, 3))
