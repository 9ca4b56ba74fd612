"""A data set without end: soft shapes whose place, size, form and two colours are ten numbers."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


def draw(numbers: Tensor, side: int = 32) -> Tensor:
    """Pictures (n, 3, side, side) in [-1, 1] of (n, 10) numbers in [0, 1]."""
    n = numbers.view(-1, 10, 1, 1)
    places = (torch.arange(side) + 0.5) / side
    down, right = (places.view(-1, 1) - 0.25 - n[:, 1] / 2).abs(), (places - 0.25 - n[:, 0] / 2).abs()
    power = 1 + 3 * n[:, 3] ** 2  # from a diamond to nearly a square
    reach = (right**power + down**power) ** (1 / power)
    inside = torch.sigmoid(60 * (0.12 + 0.2 * n[:, 2] - reach))[:, None]
    return inside * (2 * n[:, 4:7] - 1) + (1 - inside) * (2 * n[:, 7:] - 1)


def numbers(count: int, seed: int) -> Tensor:
    return torch.rand(count, 10, generator=torch.Generator().manual_seed(seed))


def shapes(count: int, seed: int) -> Tensor:
    return draw(numbers(count, seed))


def families(count: int, seed: int) -> Tensor:
    """Half of the pictures are one of ten or so that differ by a trifle."""
    all_numbers = numbers(count, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    elder = torch.randint(max(1, count // 10), (count,), generator=generator)
    like = (all_numbers[elder] + 0.02 * torch.randn(count, 10, generator=generator)).clamp(0, 1)
    return draw(torch.where(torch.rand(count, 1, generator=generator) < 0.5, like, all_numbers))


def noisy(images: Tensor, strength: float, seed: int = 0) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + strength * noise).clamp(-1, 1)


def blurred(images: Tensor) -> Tensor:
    """As an autoencoder with 4 x 4 places might give them back."""
    return interpolate(avg_pool2d(images, 4), scale_factor=4, mode="bilinear")
