"""Feature maps for a loss: shapes, gradients, and the distance by hand."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.features import FeatureMaps, load_extractor, load_feature_maps, perceptual_distance
from calotype.features.preparing import normalised


@pytest.fixture(scope="module")
def maps() -> FeatureMaps:
    return load_feature_maps("efficientnet-lite0")


def pictures(number: int = 2, side: int = 64) -> Tensor:
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("side", "finest"), [(32, 64), (160, 80)])
def test_four_resolutions_of_the_enlarged_picture(maps: FeatureMaps, side: int, finest: int) -> None:
    shapes = [tuple(found.shape) for found in maps(pictures(2, side))]
    assert shapes == [(2, c, finest // k, finest // k) for c, k in ((16, 1), (24, 2), (40, 4), (112, 8))]


def test_the_maps_are_those_of_the_extractors_network(maps: FeatureMaps) -> None:
    """Continued to the end, the coarsest map gives what extract_features gives."""
    network, images = load_extractor()._network, pictures(1, 128)
    h = maps(images)[-1]
    for block in network._blocks[11:]:
        h = block(h)
    h = network._swish(network._bn1(network._conv_head(h)))
    torch.testing.assert_close(h, network.extract_features(normalised(images)), rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_picture_and_nothing_of_the_network(maps: FeatureMaps) -> None:
    images, other = pictures(), (-pictures()).requires_grad_()
    distance = perceptual_distance(maps, images, other)
    distance.backward()
    assert other.grad is not None
    assert bool((other.grad.abs().amax((1, 2, 3)) > 0).all())
    assert 0 < float(distance.detach()) < 4
    assert float(perceptual_distance(maps, images, images)) < 1e-9
    (ahead,) = torch.autograd.grad(perceptual_distance(maps, images, other), other)
    nearer = other.detach() - 50 * ahead
    assert float(perceptual_distance(maps, images, nearer)) < float(distance.detach())


class Chosen:
    """Maps that are the picture itself, and it at half its size with its channels scaled."""

    name = "chosen"

    def __call__(self, images: Tensor) -> list[Tensor]:
        return [images, 7 * images[..., ::2, ::2]]


def test_distance_by_hand() -> None:
    first, second = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    first[:, 0], second[:, 0] = 2.0, 5.0  # alike up to a factor: distance 0 ...
    second[0, :, 0, 0] = torch.tensor([0.0, 3.0, 0.0])  # ... but here nothing in common: 2, at 1 of 4 and of 1 places
    assert float(perceptual_distance(Chosen(), first, second)) == pytest.approx((2 / 4 + 2) / 2, rel=1e-5)
    second[0, :, 0, 0] = torch.tensor([-1.0, 0.0, 0.0])  # opposite: 4
    assert float(perceptual_distance(Chosen(), first, second)) == pytest.approx((4 / 4 + 4) / 2, rel=1e-5)


def test_a_picture_without_activations_has_a_gradient() -> None:
    other = torch.zeros(1, 3, 4, 4, requires_grad=True)
    perceptual_distance(Chosen(), pictures(1, 4), other).backward()
    assert other.grad is not None
    assert bool(other.grad.isfinite().all())


def test_an_unknown_or_missing_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no feature network 'vgg': choose from efficientnet-lite0"):
        load_feature_maps("vgg")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"a perceptual loss needs package .*: pip install 'calotype\[eval\]'"):
        load_feature_maps("efficientnet-lite0")
