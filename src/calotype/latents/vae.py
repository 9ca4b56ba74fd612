"""The convolutional variational autoencoder (Kingma & Welling 2014): pictures to spatial latents and back."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.latents.folded import folded_decoder, folded_encoder
from calotype.latents.kl_layout import KLDecoder, KLEncoder

FOLDED_ONLY = ("patch", "encoder_blocks", "decoder_blocks")
DIFFUSERS_ONLY = ("blocks", "middle_attention")


class VAEConfig(Config):
    """Shape of a ConvVAE: `folded` is the fast layout, `diffusers` the one that exports to stock AutoencoderKL.

    Widths are listed from the finest level to the coarsest; each level after the first halves. `folded`: the stem folds
    `patch` pixels a side, every level has its own numbers of residual blocks. `diffusers`: `blocks` at every level, one
    more in the decoder. Null is the family's own: f8 in both. What the other family alone has is refused.
    """

    family: Literal["folded", "diffusers"] = "folded"
    latent_channels: int = Field(4, ge=1)
    channels: tuple[int, ...] | None = None
    norm_groups: int = Field(16, ge=1)
    patch: int | None = Field(None, ge=1)
    encoder_blocks: tuple[int, ...] | None = None
    decoder_blocks: tuple[int, ...] | None = None
    blocks: int | None = Field(None, ge=1)
    middle_attention: bool | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        return self.channels or ((48, 96) if self.family == "folded" else (16, 32, 64, 96))

    @property
    def downsampling(self) -> int:
        """Pixels per latent position and side: f of "f8"."""
        stem = (self.patch or 4) if self.family == "folded" else 1
        return int(stem * 2 ** (len(self.widths) - 1))

    @model_validator(mode="after")
    def _is_buildable(self) -> Self:
        """Refuse what one family has not, and lists that do not match (UserError)."""
        folded, levels = self.family == "folded", len(self.widths)
        for name in DIFFUSERS_ONLY if folded else FOLDED_ONLY:
            if getattr(self, name) is not None:
                raise UserError(f"a VAE of family '{self.family}' has no '{name}'", "leave it null")
        for name in ("encoder_blocks", "decoder_blocks"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != levels:
                raise UserError(f"{name} lists {len(numbers)} levels, channels {levels}", "give one number a level")
        if min(self.widths) < 1:
            raise UserError(f"channels {list(self.widths)} are not all above 0", "give one width a level")
        return self

    def why_not_diffusers(self) -> str:
        """Why AutoencoderKL cannot compute this VAE; empty when it can."""
        if self.family != "diffusers":
            return "its VAE is of the fast family, which AutoencoderKL cannot express"
        if any(width % self.norm_groups for width in self.widths):
            return f"its VAE's norm_groups={self.norm_groups} does not divide every width of {list(self.widths)}"
        return ""


class ConvVAE(nn.Module):
    """q(z given image) = N(mean, exp(logvar)), both spatial; p(image given z) around the decoder's picture."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels, widths, groups = config.latent_channels, config.widths, config.norm_groups
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.family == "folded":
            patch, levels = config.patch or 4, len(widths)
            self.encoder = folded_encoder(channels, patch, widths, config.encoder_blocks or (1,) * levels, groups)
            own = config.decoder_blocks or (2,) + (1,) * (levels - 1)
            self.decoder = folded_decoder(channels, patch, widths, own, groups)
        else:
            blocks, attention = config.blocks or 1, config.middle_attention is not False
            self.encoder = KLEncoder(channels, widths, blocks, groups, attention)
            self.decoder = KLDecoder(channels, widths, blocks, groups, attention)

    @property
    def last_weight(self) -> Tensor:
        """The weight of the decoder's last convolution, where gradients of losses are compared."""
        return [layer for layer in self.decoder.modules() if isinstance(layer, nn.Conv2d)][-1].weight

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, 3, H, W) in [-1, 1] -> mean and logvar, each (b, c, H/f, W/f), of the raw latent."""
        f = self.config.downsampling
        if images.shape[-1] % f or images.shape[-2] % f:
            raise ValueError(f"pictures must be divisible by {f} on both sides, got {tuple(images.shape[-2:])}")
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        return mean.contiguous(), logvar.clamp(-20, 5)  # a view of a half would not do for FSDP2

    def decode(self, z_raw: Tensor) -> Tensor:
        """z_raw (b, c, h, w) -> images (b, 3, f h, f w), about [-1, 1] and not clipped."""
        return self.decoder(z_raw)


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z_raw = mean + exp(logvar / 2) noise (eq. 43; Kingma & Welling 2014, section 2.4), so that gradients pass."""
    return mean + torch.exp(0.5 * logvar) * noise


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) = (mean^2 + exp(logvar) - 1 - logvar)/2 (eq. 44), mean over elements: ()."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
