"""Every picture encoded once: the posterior's mean and std, plain and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from calotype.core.files import read_json, verify_folder, write_folder, write_json
from calotype.core.tensors import load_tensors, save_tensors
from calotype.latents import tiling
from calotype.latents.codec import LatentStatistics
from calotype.latents.first_stage import FirstStage


@dataclass(frozen=True)
class LatentSet:
    """Posteriors of n pictures: mean, std (v, n, c, h, w), v = 1, or 2 with the mirrored pictures second."""

    mean: Tensor
    std: Tensor
    statistics: LatentStatistics

    def draw(self, ids: Tensor, flipped: Tensor, noise: Tensor) -> Tensor:
        """A fresh standardised sample x0 (b, c, h, w) of the posteriors of pictures `ids` (b,), some mirrored."""
        variant = flipped.long() % len(self.mean)
        z_raw = self.mean[variant, ids] + self.std[variant, ids] * noise
        return self.standardize(z_raw)

    def standardize(self, z_raw: Tensor) -> Tensor:
        """z_raw -> x0, with the codec's own statistics."""
        mean = torch.tensor(self.statistics.mean, device=z_raw.device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.statistics.std, device=z_raw.device).reshape(1, -1, 1, 1)
        return (z_raw - mean) / std

    def to(self, device: torch.device) -> LatentSet:
        return LatentSet(self.mean.to(device), self.std.to(device), self.statistics)

    def save(self, folder: Path) -> None:
        """Write the folder whole or not at all."""

        def fill(aside: Path) -> None:
            save_tensors(aside / "latents.safetensors", {"mean": self.mean, "std": self.std})
            write_json(aside / "statistics.json", self.statistics.model_dump())

        write_folder(folder, fill)

    @staticmethod
    def load(folder: Path) -> LatentSet:
        """Read and verify what `save` wrote; CorruptFileError if it is not whole."""
        verify_folder(folder)
        tensors = load_tensors(folder / "latents.safetensors")
        statistics = LatentStatistics.parse(read_json(folder / "statistics.json"), str(folder / "statistics.json"))
        return LatentSet(tensors["mean"], tensors["std"], statistics)


@torch.no_grad()
def encode_pictures(
    vae: FirstStage,
    pictures: Callable[[Tensor], Tensor],
    num_pictures: int,
    train_ids: Tensor,
    *,
    mirrored: bool,
    batch_size: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatentSet:
    """Encode all pictures; `pictures(ids)` gives images (b, 3, H, W) in [-1, 1]. Statistics are of `train_ids` alone.

    The scale is that of what the denoiser sees: var(mean) + mean(std^2) per channel, over the whole training set (a
    scale from one batch, or a constant from elsewhere, is how samples become noise).
    """
    vae.eval()
    device = next(vae.parameters()).device
    means: list[list[Tensor]] = [[], []]
    stds: list[list[Tensor]] = [[], []]
    for ids in torch.arange(num_pictures).split(batch_size):
        images = pictures(ids).to(device)
        for variant in range(1 + mirrored):
            mean, logvar = tiling.encode(vae, images.flip(-1) if variant else images)
            means[variant].append(mean.cpu())
            stds[variant].append(torch.exp(0.5 * logvar).cpu())
        progress(int(ids[-1]) + 1, num_pictures)
    mean = torch.stack([torch.cat(part) for part in means[: 1 + mirrored]])
    std = torch.stack([torch.cat(part) for part in stds[: 1 + mirrored]])
    return LatentSet(mean, std, measure(mean[:, train_ids], std[:, train_ids]))


def measure(mean: Tensor, std: Tensor) -> LatentStatistics:
    """Statistics of posteriors mean, std (v, n, c, h, w): mean, total std and the 99.5 % quantile of |x0|."""
    mean, std = mean.double(), std.double()
    center = mean.mean((0, 1, 3, 4))
    spread = (mean.var((0, 1, 3, 4), unbiased=False) + std.square().mean((0, 1, 3, 4))).sqrt().clamp(min=1e-6)
    magnitude = ((mean - center[:, None, None]) / spread[:, None, None]).abs().flatten()
    step = -(-magnitude.numel() // 1_000_000)  # a quantile of a million values is exact enough
    bound = torch.quantile(magnitude[::step], 0.995)
    return LatentStatistics(mean=tuple(center.tolist()), std=tuple(spread.tolist()), bound=float(bound))
