"""Stage two: what the denoiser minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core import distributed
from calotype.core.config import Config
from calotype.core.random import normal, uniform
from calotype.latents import LatentSet
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.nn.dropout import dropping
from calotype.process import (
    Density,
    Parameterization,
    Process,
    Weighting,
    add_noise,
    loss_weight,
    noise_angle,
    sample_t,
    target,
)
from calotype.training.checkpoint import Best
from calotype.training.objective import Losses, shared_sums


class DenoiserLossConfig(Config):
    """What the network predicts and how its error is counted: E w(t) rho(prediction - target) over t of a density.

    `weighting` and `gamma` choose w (eqs. 21-23), `distance` rho, `density` with `density_loc` and `density_scale` the
    levels (eq. 24; null: the process's own). Conditions are dropped for classifier-free guidance; where
    a picture has text and class, each is left out in a share `part_dropout`, so that either can be asked for alone.
    `rewording`: the share of short captions that are learnt in other words, "an owl" for "owl", so that not only their
    very words draw them.
    `flip`: learn mirrored pictures too (null: unless the captions or classes tell left from right).
    """

    parameterization: Parameterization = "v"
    distance: Literal["l2", "l1", "huber"] = "l2"
    weighting: Weighting = "constant"
    gamma: float = Field(5.0, gt=0)
    density: Density | None = None
    density_loc: float | None = None
    density_scale: float | None = Field(None, gt=0)
    condition_dropout: float = Field(0.12, ge=0, le=1)
    part_dropout: float = Field(0.25, ge=0, le=0.5)
    rewording: float = Field(0.0, ge=0, le=1)
    flip: bool | None = None


KNOWS_NOTHING = 0.4  # mean distance of targets of unit variance from 0, by the mildest of the distances, huber
DISTANCES: dict[str, Callable[..., Tensor]] = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class DenoiserObjective:
    """E w(t) rho(F(x_t, t, cond) - target) over data, t and eps (eq. 20; Ho et al. 2020, eq. 14, is one case)."""

    stage = "denoiser"
    auxiliary: nn.Module | None = None
    best: tuple[Best, ...] = (("kernel_distance", "min"), ("held_out_error", "min"))
    steady = "unweighted"  # a few samples with a large weight make one batch's loss a hundred times another's
    floor = KNOWS_NOTHING

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        config: DenoiserLossConfig,
        latents: LatentSet,
        condition: Callable[..., Condition],
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

    def losses(self, step: int, ids: Tensor) -> Losses:
        shape = self.latents.shape
        draws = uniform(self.seed, "time-drop-flip", step, ids, (3,)).to(self.device)
        pictures = self.train_ids[ids].to(self.device)
        flipped = draws[:, 2] < (0.5 if self.config.flip else 0.0)
        x0 = self.latents.draw(pictures, flipped, normal(self.seed, "posterior", step, ids, shape).to(self.device))
        cond = self._dropped(self._worded(pictures, step, ids), draws[:, 1], step, ids)
        eps = normal(self.seed, "eps", step, ids, shape).to(self.device)
        process = self.process
        config = self.config
        t = sample_t(process, draws[:, 0], config.density, loc=config.density_loc, scale=config.density_scale)
        with dropping(self.seed, step, ids):
            prediction = self.denoiser.predict(add_noise(process, x0, t, eps), t, cond)
        wanted = target(config.parameterization, process, x0, eps, t)
        each = DISTANCES[config.distance](prediction, wanted, reduction="none").mean((1, 2, 3))
        terms = {"loss": each.mean()}
        if config.weighting != "constant":
            weight = loss_weight(process, config.weighting, config.parameterization, t, gamma=config.gamma)
            each = weight.to(each) * each
            terms = {"loss": each.mean(), "unweighted": terms["loss"]}
        return Losses(terms, each.detach(), noise_angle(process, t))

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """x0 error on fixed noise at 8 even levels, held-out and training pictures apart; 1 = predicting the mean."""
        denoiser = NetworkDenoiser(network, self.process, self.config.parameterization)
        errors = {}
        for name, ids in self.fixed.items():
            if len(ids):
                parts = distributed.even_parts(ids, 64)
                errors[name] = sum(self._error(denoiser, part) * counted for part, counted in parts) / len(ids)
        return shared_sums(errors)

    def observe(self, measures: dict[str, float]) -> bool:
        """Nothing here depends on measures."""
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing to take back."""

    def _worded(self, pictures: Tensor, step: int, ids: Tensor) -> Condition:
        """What the pictures are asked with, some in other words."""
        if self.config.rewording == 0:
            return self.condition(pictures)
        draws = uniform(self.seed, "wording", step, ids).to(self.device)
        return self.condition(pictures, draws / self.config.rewording)

    def _dropped(self, cond: Condition, draws: Tensor, step: int, ids: Tensor) -> Condition:
        """Some rows without their condition; of text and class together, each often alone, so that one will do."""
        if cond.text is not None and cond.label is not None:
            draw, share = uniform(self.seed, "drop-parts", step, ids).to(self.device), self.config.part_dropout
            texts = (draw < share) & (cond.label >= 0)
            labels = (draw >= 1 - share) & cond.with_text
            cond = cond.dropped_parts(texts, labels)
        return cond.dropped(draws < self.config.condition_dropout)

    def _error(self, denoiser: NetworkDenoiser, ids: Tensor) -> float:
        process, shape = self.process, self.latents.shape
        levels = (torch.arange(len(ids)) % 8 + 0.5) / 8
        t = sample_t(process, levels.to(self.device))
        x0 = self.latents.standardize(self.latents.posterior(ids.to(self.device))[0])
        eps = normal(self.seed, "validation", 0, ids, shape).to(self.device)
        x0_hat = denoiser(add_noise(process, x0, t, eps), t, self.condition(ids.to(self.device)))
        return float((x0_hat - x0).square().mean())
