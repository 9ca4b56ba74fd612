import math

import numpy as np
import pytest
import torch
from torch import Tensor

from calotype.images.similarity import psnr, ssim


def _pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_a_constant_difference() -> None:
    images = torch.zeros(3, 3, 12, 12)
    differences = torch.tensor([0.2, 0.02, 2.0]).reshape(3, 1, 1, 1)
    # A range of 2 and a difference d: 20 log10(2 / d).
    torch.testing.assert_close(psnr(images, images + differences), torch.tensor([20.0, 40.0, 0.0]), atol=1e-4, rtol=0)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    images = _pictures(2, 3, 4, 4)
    assert psnr(images, images).tolist() == [math.inf, math.inf]


def test_psnr_of_noise() -> None:
    noise = 0.1 * torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(psnr(noise, torch.zeros_like(noise)), torch.full((2,), 26.02), atol=0.1, rtol=0)


def test_ssim_of_equal_pictures_is_one() -> None:
    images = _pictures(2, 3, 16, 20)
    torch.testing.assert_close(ssim(images, images), torch.ones(2))


def test_ssim_is_symmetric_and_falls_with_noise() -> None:
    images, noise = _pictures(2, 3, 24, 24), _pictures(2, 3, 24, 24, seed=1)
    torch.testing.assert_close(ssim(images, images + 0.1 * noise), ssim(images + 0.1 * noise, images))
    values = torch.stack([ssim(images, images + size * noise) for size in (0.05, 0.2, 0.8)])
    assert (values.diff(dim=0) < 0).all()


def test_ssim_of_flat_pictures_compares_luminance_alone() -> None:
    grey, light = torch.zeros(1, 3, 11, 11), torch.full((1, 3, 11, 11), 0.5)
    # Intensities 1 and 1.5 of 2; C1 = (.01 * 2)^2.
    expected = (2 * 1 * 1.5 + 0.0004) / (1 + 1.5**2 + 0.0004)
    assert ssim(grey, light).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_against_the_definition_window_by_window() -> None:
    images, others = _pictures(1, 3, 13, 12), _pictures(1, 3, 13, 12, seed=1)
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for colour in range(3):
        for row in range(3):
            for column in range(2):
                x, y = (
                    picture[0, colour, row : row + 11, column : column + 11].double().numpy() + 1
                    for picture in (images, others)
                )
                mu_x, mu_y = (weights * x).sum(), (weights * y).sum()
                var_x, var_y = (weights * (x - mu_x) ** 2).sum(), (weights * (y - mu_y) ** 2).sum()
                cov = (weights * (x - mu_x) * (y - mu_y)).sum()
                c1, c2 = 0.02**2, 0.06**2
                values.append(
                    (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
                )
    assert ssim(images, others).item() == pytest.approx(np.mean(values), abs=1e-6)


def test_each_picture_is_scored_by_itself() -> None:
    images, others = _pictures(4, 3, 16, 16), _pictures(4, 3, 16, 16, seed=1)
    for score in (psnr, ssim):
        alone = torch.cat([score(images[i : i + 1], others[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(score(images, others), alone)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="two equal batches"):
        psnr(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))
