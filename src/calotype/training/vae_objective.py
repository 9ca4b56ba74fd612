"""Stage one: what the VAE minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core import distributed
from calotype.core.config import Config
from calotype.core.random import normal
from calotype.features import check_feature_maps, load_feature_maps, perceptual_distance
from calotype.images.similarity import psnr, ssim
from calotype.latents import ConvVAE, FirstStage, kl_divergence, reparameterize
from calotype.training.adversarial import PatchDiscriminator, adversarial_loss, balance, competence, discriminator_loss
from calotype.training.augment import AugmentConfig, augment
from calotype.training.checkpoint import Best
from calotype.training.objective import Losses, shared_sums


class VAELossConfig(Config):
    """l2_weight * L2 + l1_weight * L1 + kl_weight * KL (eq. 45), all means over elements, and what may be added.

    The KL's weight grows over `kl_warmup` steps (eq. 48). `multiscale_weight`: L2 and L1 again on smaller pictures
    (eq. 49). `perceptual_weight`: distance in the maps of the network `perceptual` (eq. 50). `adversarial_weight`: a
    discriminator of patches (eq. 51) that joins when a validation finds held-out L1 improved by less than the share
    `adversarial_plateau` since the one before, unless the learning rate already falls.
    """

    l1_weight: float = Field(0.25, ge=0)
    l2_weight: float = Field(1.0, ge=0)
    kl_weight: float = Field(1e-3, ge=0)
    kl_warmup: int = Field(0, ge=0)
    multiscale_weight: float = Field(0.0, ge=0)
    perceptual_weight: float = Field(0.0, ge=0)
    perceptual: str = "efficientnet-lite0"
    adversarial_weight: float = Field(0.0, ge=0)
    adversarial_plateau: float = Field(0.03, gt=0, lt=1)
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _knows_its_network(self) -> Self:
        """Said before anything is trained (UserError)."""
        check_feature_maps(self.perceptual)
        return self

    def reconstruction(self, l1: Tensor, l2: Tensor) -> Tensor:
        """L2 for fidelity, L1 for clean outlines."""
        return self.l2_weight * l2 + self.l1_weight * l1

    def kl_weight_at(self, step: int) -> float:
        """The weight of the KL term at `step` (from 0): kl_weight min(1, (step + 1) / kl_warmup) (eq. 48)."""
        return self.kl_weight * min(1.0, (step + 1) / max(self.kl_warmup, 1))


class VAEObjective:
    """The negative evidence lower bound of Kingma & Welling (2014, eq. 10), with a free weight on the KL term.

    `auxiliary` is the discriminator, where one is asked for. It waits until `observe` has seen reconstruction get no
    better: earlier it would only learn that blur is not real, and the decoder to please it.
    """

    stage = "vae"
    best: tuple[Best, ...] = (("held_out_psnr", "max"),)
    steady, floor = "reconstruction", 0.0

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
        self.maps = load_feature_maps(config.perceptual, device) if config.perceptual_weight else None
        self.auxiliary: nn.Module | None = None
        if config.adversarial_weight:
            with torch.random.fork_rng():  # the caller's draws stay what they would have been
                torch.manual_seed(seed)
                self.auxiliary = PatchDiscriminator().to(device)
        self.adversarial = False
        self.last_l1: float | None = None

    def losses(self, step: int, ids: Tensor) -> Losses:
        """Every term by itself, before its weight; 'loss' is their weighted sum."""
        images = augment(self.pictures(self.train_ids[ids]), self.config.augment, self.seed, step, ids)
        images = images.to(self.device)
        mean, logvar = (moment.float() for moment in self.network.encode(images))
        noise = normal(self.seed, "posterior", step, ids, tuple(mean.shape[1:])).to(self.device)
        reconstructed = self.network.decode(reparameterize(mean, logvar, noise)).float()
        terms = self._likeness(images, reconstructed)
        kl = kl_divergence(mean, logvar)
        loss = terms["reconstruction"] + self.config.kl_weight_at(step) * kl
        if "multiscale" in terms:
            loss = loss + self.config.multiscale_weight * terms["multiscale"]
        if "perceptual" in terms:
            loss = loss + self.config.perceptual_weight * terms["perceptual"]
        terms = {"loss": loss, **terms, "kl": kl}
        if self.adversarial:
            terms = self._with_adversary(terms, images, reconstructed)
        return Losses(terms, (reconstructed.detach() - images).square().mean((1, 2, 3)))

    def _likeness(self, images: Tensor, reconstructed: Tensor) -> dict[str, Tensor]:
        """Reconstruction (weighted L1 and L2), each of both, and the terms that were asked for."""
        config = self.config
        l1, l2 = F.l1_loss(reconstructed, images), F.mse_loss(reconstructed, images)
        terms = {"reconstruction": config.reconstruction(l1, l2), "l1": l1, "l2": l2}
        if config.multiscale_weight:
            terms["multiscale"] = multiscale_loss(config, images, reconstructed)
        if self.maps is not None:
            terms["perceptual"] = perceptual_distance(self.maps, images, reconstructed)
        return terms

    def _with_adversary(self, terms: dict[str, Tensor], images: Tensor, reconstructed: Tensor) -> dict[str, Tensor]:
        assert self.auxiliary is not None
        assert isinstance(self.network, ConvVAE)
        judged = discriminator_loss(self.auxiliary, images, reconstructed)
        adversarial = adversarial_loss(self.auxiliary, reconstructed)
        pull = balance(terms["loss"], adversarial, self.network.last_weight) * competence(judged)
        return {
            **terms,
            "loss": terms["loss"] + self.config.adversarial_weight * pull * adversarial,
            "adversarial": adversarial,
            "balance": pull,
            "discriminator": judged,
        }

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Held-out PSNR (dB), SSIM and L1 of reconstructions through the posterior's mean."""
        assert isinstance(network, FirstStage)
        sums = torch.zeros(3, dtype=torch.float64)
        for part, counted in distributed.even_parts(self.held_out_ids, 64):
            images = self.pictures(part).to(self.device)
            reconstructed = network.decode(network.encode(images)[0]).clamp(-1, 1)
            distance = (images - reconstructed).abs().mean((1, 2, 3))
            scores = torch.stack([psnr(images, reconstructed), ssim(images, reconstructed), distance])
            sums += scores[:, :counted].double().sum(1).cpu()
        means = (sums / len(self.held_out_ids)).tolist()
        return shared_sums(dict(zip(("held_out_psnr", "held_out_ssim", "held_out_l1"), means, strict=True)))

    def observe(self, measures: dict[str, float]) -> bool:
        """The discriminator joins, which is told, when held-out L1 has hardly improved since the last time."""
        before, self.last_l1 = self.last_l1, measures["held_out_l1"]
        if self.auxiliary is None or self.adversarial or before is None:
            return False
        self.adversarial = before - self.last_l1 < self.config.adversarial_plateau * before
        return self.adversarial

    def state(self) -> dict[str, Any]:
        """What `observe` has decided, for a checkpoint."""
        return {"adversarial": self.adversarial, "last_l1": self.last_l1} if self.auxiliary is not None else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.adversarial, self.last_l1 = bool(state.get("adversarial")), state.get("last_l1")


def multiscale_loss(config: VAELossConfig, images: Tensor, reconstructed: Tensor) -> Tensor:
    """The reconstruction loss of pictures averaged over squares of 2 and of 4 pixels, mean of both (eq. 49), ()."""
    terms = []
    for side in (2, 4):
        small, decoded = F.avg_pool2d(images, side), F.avg_pool2d(reconstructed, side)
        terms.append(config.reconstruction(F.l1_loss(decoded, small), F.mse_loss(decoded, small)))
    return torch.stack(terms).mean()
