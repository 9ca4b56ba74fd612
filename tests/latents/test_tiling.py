"""Tiles: weights that sum to one, pictures that show no seam, and nothing changed where nothing is large."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calotype.latents import Codec, ConvVAE, LatentStatistics, VAEConfig, tiling

SMALL = VAEConfig(channels=(8, 16))


@pytest.mark.parametrize("length", [1, 64, 65, 97, 112, 113, 127, 128, 160, 161, 500])
@pytest.mark.parametrize("scale", [1, 8])
def test_weights_sum_to_one_everywhere(length: int, scale: int) -> None:
    begins = tiling.starts(length)
    total = torch.zeros(length * scale)
    for begin, weight in zip(begins, tiling.blending(begins, length, scale), strict=True):
        assert weight.min() >= 0
        total[begin * scale : begin * scale + len(weight)] += weight
    torch.testing.assert_close(total, torch.ones(length * scale), rtol=0, atol=1e-6)
    assert begins[0] == 0
    assert begins[-1] == max(length - tiling.TILE, 0)


def test_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE", 6)
    monkeypatch.setattr(tiling, "OVERLAP", 3)
    monkeypatch.setattr(tiling, "RAMP", 2)
    assert tiling.starts(9) == [0, 3]
    first, second = tiling.blending([0, 3], 9, 1)  # both see positions 3, 4, 5: middle 4.5, one of the two on each side
    torch.testing.assert_close(first, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, 0.0]))
    torch.testing.assert_close(second, torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0, 1.0]))


class Local(nn.Module):
    """An f2 first stage of convolutions alone: what it gives somewhere depends on what is near, and on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = VAEConfig(patch=2, channels=(3,))
        self.down, self.up = nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)
        self.seen: list[tuple[int, ...]] = []

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(tuple(images.shape[-2:]))
        mean, logvar = self.down(images).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z_raw: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(z_raw.shape[-2:]))
        return self.up(z_raw)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(100, 110), (33, 300), (200, 129)])
def test_what_is_local_does_not_see_the_tiles(height: int, width: int) -> None:
    vae, images = Local(), torch.rand(2, 3, 2 * height, 2 * width) * 2 - 1
    mean, logvar = tiling.encode(vae, images)
    decoded = tiling.decode(vae, mean)
    sizes = {side for shape in vae.seen for side in shape}
    assert max(sizes) <= 2 * tiling.TILE, "no more than a tile at a time"
    assert len(vae.seen) > 2
    for tiled, whole in zip((mean, logvar, decoded), (*vae.encode(images), vae.decode(mean)), strict=True):
        torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_seams_of_a_real_vae_are_small() -> None:
    """Its normalisations see the tile and not the picture; across a seam it changes no more than anywhere else."""
    torch.manual_seed(0)
    vae = ConvVAE(SMALL).eval()
    for parameter in vae.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    codec = Codec(vae, LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=3.0), 64)
    x0 = torch.randn(1, 4, 80, 130)
    tiled, whole = codec.decode(x0), vae.decode(x0).clamp(-1, 1)
    difference = tiled - whole
    assert 0 < difference.abs().mean() < 0.05 * whole.std()
    for side in (-1, -2):
        steps = tiled.diff(dim=side).abs().movedim(side, 0).flatten(1).mean(1)  # how much neighbouring lines differ
        usual = whole.diff(dim=side).abs().movedim(side, 0).flatten(1).mean(1)
        assert (steps / usual).max() < 1.1


@torch.no_grad()
def test_what_is_not_large_is_computed_as_before() -> None:
    vae = ConvVAE(SMALL).eval()
    codec = Codec(vae, LatentStatistics(mean=(0.1,) * 4, std=(2.0,) * 4, bound=3.0), 64)
    x0 = torch.randn(1, 4, 96, 96)
    assert torch.equal(codec.decode(x0), vae.decode(x0 * codec.std + codec.mean).clamp(-1, 1))
    images = torch.rand(2, 3, 64, 96)
    assert torch.equal(codec.encode(images), (vae.encode(images)[0] - codec.mean) / codec.std)
    with pytest.raises(ValueError, match="divisible by 8"):
        codec.encode(torch.rand(1, 3, 8 * 200 + 1, 8 * 200))
