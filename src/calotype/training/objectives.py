"""What each stage minimises. An objective is a pure function of (weights, step, sample ids)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.config import Config
from calotype.core.random import normal, uniform
from calotype.images.similarity import psnr, ssim
from calotype.latents import FirstStage, LatentSet, kl_divergence, reparameterize
from calotype.latents.vae import reconstruction_loss
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.process import Density, Parameterization, Process, Weighting, add_noise, loss_weight, sample_t, target
from calotype.training.augment import AugmentConfig, augment


class Objective(Protocol):
    """One stage of training."""

    stage: str
    num_samples: int

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def losses(self, step: int, ids: Tensor) -> dict[str, Tensor]:
        """Scalars of one batch of sample indices (b,) in [0, num_samples); 'loss' is minimised, all are logged."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures of averaged weights on fixed data and noise; the same weights give the same values."""
        ...


class VAELossConfig(Config):
    """l2_weight * L2 + l1_weight * L1 + kl_weight * KL (eq. 45), all means over elements."""

    l1_weight: float = Field(0.25, ge=0)
    l2_weight: float = Field(1.0, ge=0)
    kl_weight: float = Field(1e-3, ge=0)
    augment: AugmentConfig = AugmentConfig()


class VAEObjective:
    """The negative evidence lower bound of Kingma & Welling (2014, eq. 10), with a free weight on the KL term."""

    stage = "vae"

    def __init__(
        self,
        network: FirstStage,
        config: VAELossConfig,
        pictures: Callable[[Tensor], Tensor],
        train_ids: Tensor,
        held_out_ids: Tensor,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network, self.config, self.seed, self.device = network, config, seed, device
        self.pictures, self.train_ids = pictures, train_ids
        self.held_out_ids = held_out_ids[:256] if len(held_out_ids) else train_ids[:64]
        self.num_samples = len(train_ids)

    def losses(self, step: int, ids: Tensor) -> dict[str, Tensor]:
        images = augment(self.pictures(self.train_ids[ids]), self.config.augment, self.seed, step, ids)
        images = images.to(self.device)
        mean, logvar = self.network.encode(images)
        noise = normal(self.seed, "posterior", step, ids, tuple(mean.shape[1:])).to(self.device)
        reconstructed = self.network.decode(reparameterize(mean, logvar, noise))
        reconstruction = reconstruction_loss(images, reconstructed, self.config.l1_weight, self.config.l2_weight)
        kl = kl_divergence(mean, logvar)
        return {"loss": reconstruction + self.config.kl_weight * kl, "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Held-out PSNR (dB), SSIM and L1 of reconstructions through the posterior's mean."""
        assert isinstance(network, FirstStage)
        scores: list[Tensor] = []
        for part in self.held_out_ids.split(64):
            images = self.pictures(part).to(self.device)
            reconstructed = network.decode(network.encode(images)[0]).clamp(-1, 1)
            distance = (images - reconstructed).abs().mean((1, 2, 3))
            scores.append(torch.stack([psnr(images, reconstructed), ssim(images, reconstructed), distance]))
        means = torch.cat(scores, dim=1).mean(1)
        return dict(zip(("held_out_psnr", "held_out_ssim", "held_out_l1"), means.tolist(), strict=True))


class DenoiserLossConfig(Config):
    """What the network predicts and how its error is counted: E w(t) rho(prediction - target) over t of a density.

    `weighting` and `gamma` choose w (eqs. 21-23), `distance` rho, `density` with `density_loc` and `density_scale` the
    levels (eq. 24; null: the process's own). Conditions are dropped for classifier-free guidance.
    """

    parameterization: Parameterization = "v"
    distance: Literal["l2", "l1", "huber"] = "l2"
    weighting: Weighting = "constant"
    gamma: float = Field(5.0, gt=0)
    density: Density | None = None
    density_loc: float | None = None
    density_scale: float | None = Field(None, gt=0)
    condition_dropout: float = Field(0.12, ge=0, le=1)
    flip: bool = False


DISTANCES: dict[str, Callable[..., Tensor]] = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class DenoiserObjective:
    """E w(t) rho(F(x_t, t, cond) - target) over data, t and eps (eq. 20; Ho et al. 2020, eq. 14, is one case)."""

    stage = "denoiser"

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        config: DenoiserLossConfig,
        latents: LatentSet,
        condition: Callable[[Tensor], Condition],
        train_ids: Tensor,
        held_out_ids: Tensor,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network, self.process, self.config = network, process, config
        self.denoiser = NetworkDenoiser(network, process, config.parameterization)
        self.latents, self.condition = latents.to(device), condition
        self.train_ids, self.seed, self.device = train_ids, seed, device
        self.num_samples = len(train_ids)
        self.fixed = {"held_out_error": held_out_ids[:256], "train_error": train_ids[:256]}

    def losses(self, step: int, ids: Tensor) -> dict[str, Tensor]:
        shape = tuple(self.latents.mean.shape[2:])
        draws = uniform(self.seed, "time-drop-flip", step, ids, (3,)).to(self.device)
        pictures = self.train_ids[ids].to(self.device)
        flipped = draws[:, 2] < (0.5 if self.config.flip else 0.0)
        x0 = self.latents.draw(pictures, flipped, normal(self.seed, "posterior", step, ids, shape).to(self.device))
        cond = self.condition(pictures).dropped(draws[:, 1] < self.config.condition_dropout)
        eps = normal(self.seed, "eps", step, ids, shape).to(self.device)
        process = self.process
        config = self.config
        t = sample_t(process, draws[:, 0], config.density, loc=config.density_loc, scale=config.density_scale)
        prediction = self.denoiser.predict(add_noise(process, x0, t, eps), t, cond)
        wanted = target(config.parameterization, process, x0, eps, t)
        distance = DISTANCES[config.distance](prediction, wanted, reduction="none")
        if config.weighting == "constant":
            return {"loss": distance.mean()}
        weight = loss_weight(process, config.weighting, config.parameterization, t, gamma=config.gamma)
        return {"loss": (weight.to(distance) * distance.mean((1, 2, 3))).mean()}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """x0 error on fixed noise at 8 even levels, held-out and training pictures apart; 1 = predicting the mean."""
        denoiser = NetworkDenoiser(network, self.process, self.config.parameterization)
        errors = {}
        for name, ids in self.fixed.items():
            if len(ids):
                errors[name] = sum(self._error(denoiser, part) * len(part) for part in ids.split(64)) / len(ids)
        return errors

    def _error(self, denoiser: NetworkDenoiser, ids: Tensor) -> float:
        process, shape = self.process, tuple(self.latents.mean.shape[2:])
        levels = (torch.arange(len(ids)) % 8 + 0.5) / 8
        t = sample_t(process, levels.to(self.device))
        x0 = self.latents.standardize(self.latents.mean[0, ids.to(self.device)])
        eps = normal(self.seed, "validation", 0, ids, shape).to(self.device)
        x0_hat = denoiser(add_noise(process, x0, t, eps), t, self.condition(ids.to(self.device)))
        return float((x0_hat - x0).square().mean())
