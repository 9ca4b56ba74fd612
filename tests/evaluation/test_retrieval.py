import math

import pytest
import torch
from torch import Tensor

from calotype.evaluation import class_agreement, own_concept
from calotype.evaluation.similarity import centred_cosine


def _vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _circle(count: int) -> Tensor:
    angles = torch.arange(count) * 2 * math.pi / count
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_perfect_samples() -> None:
    gallery = _vectors(50, 16)
    own = torch.tensor([3, 3, 7, 7, 11, 11])
    score = own_concept(gallery[own], own, gallery)
    assert (score.top1.value, score.top5.value) == (1.0, 1.0)
    assert score.top1 == score.top5
    assert score.top1.low < 0.6 < score.top1.high == 1.0
    assert (score.num_prompts, score.num_samples, score.gallery_size) == (3, 6, 50)
    assert (score.chance1, score.chance5) == (0.02, 0.1)


def test_ranks_on_a_circle() -> None:
    """Turned by k and a half places, a sample's own picture comes at place 2k + 1 or 2k + 2, counted from 1."""
    gallery = _circle(24)
    for shift, top1, top5 in ((0.4, 1, 1), (0.6, 0, 1), (2.4, 0, 1), (2.6, 0, 0)):
        angle = torch.tensor(shift * 2 * math.pi / 24)
        turned = gallery @ torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
        score = own_concept(turned, torch.arange(24), gallery)
        assert (score.top1.value, score.top5.value) == (top1, top5), shift


def test_samples_that_say_nothing_score_nothing() -> None:
    gallery = torch.ones(20, 8)
    score = own_concept(torch.ones(4, 8), torch.arange(4), gallery)
    assert (score.top1.value, score.top5.value) == (0.0, 0.0)


def test_samples_of_chance_score_chance() -> None:
    score = own_concept(_vectors(2000, 32, seed=1), torch.arange(2000) % 100, _vectors(100, 32))
    assert score.top5.value == pytest.approx(score.chance5, abs=0.02)
    assert score.top1.value == pytest.approx(0.01, abs=0.01)
    assert score.top5.low < score.chance5 < score.top5.high


def test_what_all_pictures_share_does_not_count() -> None:
    gallery, own = _vectors(60, 16), torch.arange(60)
    samples = gallery + _vectors(60, 16, seed=1)
    plain, shifted = own_concept(samples, own, gallery), own_concept(samples + 300, own, gallery + 300)
    assert 0.2 < plain.top1.value < 1
    assert (plain.top1, plain.top5) == (shifted.top1, shifted.top5)


def test_the_interval_counts_prompts_not_samples() -> None:
    """Four samples that share a prompt's fate are one piece of evidence: the interval is twice as wide."""
    gallery = _vectors(100, 16)
    hits = torch.arange(100) % 2 == 0
    once = torch.where(hits[:, None], gallery, -gallery)
    wide = own_concept(once.repeat_interleave(4, 0), torch.arange(100).repeat_interleave(4), gallery)
    assert wide.top1.value == pytest.approx(0.5)
    assert wide.top1 == own_concept(once, torch.arange(100), gallery).top1
    assert wide.top1.high - wide.top1.low == pytest.approx(2 * 1.984 * math.sqrt(0.25 / 104), rel=0.01)


def test_captions_that_recur_are_ranked_once() -> None:
    """Six pictures near the sample share one caption: its own picture comes seventh, its own caption second."""
    twins = torch.tensor([[1.0, 0.01 * k] for k in range(6)])
    gallery = torch.cat([twins, torch.tensor([[1.0, 0.5], [-1.0, 0.0], [-5.0, -2.0]])])
    captions = torch.tensor([7, 7, 7, 7, 7, 7, 2, 4, 9])
    sample, own = torch.tensor([[1.0, 0.02]]), torch.tensor([6])
    assert own_concept(sample, own, gallery).top5.value == 0
    found = own_concept(sample, own, gallery, captions=captions)
    assert (found.top1.value, found.top5.value, found.gallery_size, found.chance1) == (0, 1, 4, 0.25)
    twin = own_concept(sample, torch.tensor([3]), gallery, captions=captions)
    assert twin.top1.value == 1
    both = own_concept(sample.repeat(2, 1), torch.tensor([0, 5]), gallery, captions=captions)
    assert (both.num_prompts, both.num_samples) == (1, 2)


def test_neighbours_vote_on_the_class() -> None:
    features = torch.cat([_vectors(30, 8) + 4, _vectors(30, 8, seed=1) - 4])
    classes = torch.arange(60) // 30
    asked = torch.tensor([0, 0, 1, 1])
    samples = torch.tensor([4.0, -4.0, -4.0, -4.0])[:, None] + _vectors(4, 8, seed=2)
    found = class_agreement(samples, asked, features, classes, neighbours=5)
    assert (found.right.value, found.right.count) == (0.75, 4)
    assert [(one.value, one.count) for one in found.by_class] == [(0.5, 2), (1.0, 2)]


def test_a_tied_vote_goes_to_the_likest() -> None:
    features = torch.tensor([[1.0, 0.1], [0.6, 1.0], [-1.0, -1.0], [-0.6, -0.1]])
    sample = torch.tensor([[1.0, 0.0]])
    for classes, winner in (([0, 1, 1, 0], 0), ([1, 0, 0, 1], 1)):
        found = class_agreement(sample, torch.tensor([winner]), features, torch.tensor(classes), neighbours=2)
        assert found.right.value == 1


def test_a_picture_has_no_vote_on_itself() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.3], [-1.0, 0.0], [-1.0, -0.3]])
    classes, own = torch.tensor([0, 1, 2, 3]), torch.arange(4)
    assert class_agreement(features, classes, features, classes, neighbours=1).right.value == 1
    assert class_agreement(features, classes, features, classes, neighbours=1, own=own).right.value == 0


def test_a_class_that_nobody_asked_for_is_unknown() -> None:
    found = class_agreement(_vectors(2, 4), torch.tensor([2, 2]), _vectors(9, 4), torch.arange(9) % 3, neighbours=3)
    assert [one.count for one in found.by_class] == [0, 0, 2]
    assert found.by_class[0].plain() == {"value": 0.0, "low": 0.0, "high": 1.0, "count": 0}
    with pytest.raises(ValueError, match="every sample needs the class"):
        class_agreement(_vectors(2, 4), torch.tensor([2]), _vectors(9, 4), torch.arange(9), neighbours=3)


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
