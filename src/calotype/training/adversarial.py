"""A discriminator of patches ("PatchGAN", Isola et al. 2017): decoded pictures become sharper than a mean can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from calotype.nn.layers import group_norm

LARGEST_BALANCE = 1e4
SMALLEST_JUDGED = 16  # pixels of a side that leave the discriminator something to judge


class PatchDiscriminator(nn.Module):
    """images (b, 3, H, W) -> one judgement for each patch of 34 x 34 pixels, (b, 1, H/4 - 2, W/4 - 2): high for real.

    The 34 x 34 network of their appendix, with group norm for batch norm, which would let the pictures of a batch
    tell on each other. For sides of SMALLEST_JUDGED pixels and more.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for width, stride in ((2 * channels, 2), (4 * channels, 1)):
            layers += [nn.Conv2d(width // 2, width, 4, stride=stride, padding=1), group_norm(width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * channels, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def discriminator_loss(discriminator: nn.Module, images: Tensor, reconstructed: Tensor) -> Tensor:
    """Half the hinge losses of real and decoded pictures (eq. 51, second line), (); its gradient stays within."""
    real, decoded = discriminator(images), discriminator(reconstructed.detach())
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + decoded).mean())


def adversarial_loss(discriminator: nn.Module, reconstructed: Tensor) -> Tensor:
    """Minus the mean judgement of decoded pictures (eq. 51, first line), (); no gradient to the discriminator."""
    judgement: Tensor = functional_call(discriminator, dict(discriminator.state_dict()), (reconstructed,))
    return -judgement.mean()


def balance(reconstruction: Tensor, adversarial: Tensor, weight: Tensor) -> Tensor:
    """|gradient of reconstruction| / (|gradient of adversarial| + 1e-4) at `weight`, at most 1e4 (lambda, eq. 51), ().

    Esser et al. (2021), eq. 7: whatever the scales, both pull equally hard at the decoder's last layer.
    """
    first, second = (
        torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )
    return (first / (second + 1e-4)).clamp(0, LARGEST_BALANCE).detach()


def competence(judged: Tensor) -> Tensor:
    """max(0, 1 - discriminator_loss), (): 1 for one that is sure and right, 0 for one that cannot tell (eq. 51).

    `balance` alone would magnify whatever a discriminator that cannot tell happens to ask for, and the decoder draw it.
    """
    return F.relu(1 - judged).detach()
