"""Our codecs in diffusers' AutoencoderKL: the same weights give the same latents and pictures."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from calotype.core.errors import UserError
from calotype.latents import Codec, LatentStatistics, PretrainedVAEConfig, VAEConfig, build_vae
from calotype.pipeline.export.autoencoder import to_autoencoder_kl, why_not_autoencoder
from tests.pipeline.test_export_diffusers_unet import scrambled


def own(**shape: object) -> VAEConfig:
    return VAEConfig.parse({"family": "diffusers", "norm_groups": 8, **shape}, "the test")


def stock(**settings: object) -> PretrainedVAEConfig:
    """An AutoencoderKL as its author would save it."""
    small: dict[str, object] = {"block_out_channels": [8, 16], "norm_num_groups": 4, "latent_channels": 3}
    small["down_block_types"], small["up_block_types"] = ["DownEncoderBlock2D"] * 2, ["UpDecoderBlock2D"] * 2
    return PretrainedVAEConfig(source="somebody/vae", settings={**small, "scaling_factor": 0.3, **settings})


CONFIGS = {
    "f8": own(channels=(8, 16, 16, 24)),
    "f4": own(channels=(8, 16, 32), latent_channels=3, blocks=2),
    "f4, 8 channels, no attention": own(channels=(16, 16, 16), latent_channels=8, middle_attention=False),
    "f2": own(channels=(16, 8), blocks=3),
    "f1": own(channels=(16,), norm_groups=4, latent_channels=2),
    "f16": own(channels=(8, 8, 8, 8, 16), norm_groups=2, latent_channels=5),
    "pretrained": stock(),
    "pretrained, no 1x1 convolutions": stock(use_quant_conv=False, use_post_quant_conv=False),
    "pretrained, shifted": stock(shift_factor=0.2, latents_mean=[0.1, 0.2, 0.3], latents_std=[1.0, 2.0, 3.0]),
}


def codec(config: VAEConfig | PretrainedVAEConfig) -> Codec:
    """Random weights, and statistics that no two channels share."""
    channels = range(config.latent_channels)
    statistics = LatentStatistics(
        mean=tuple(0.3 - 0.5 * c for c in channels), std=tuple(0.4 + 0.7 * c for c in channels), bound=2.0
    )
    vae = build_vae(config)
    scrambled(vae)
    return Codec(vae, statistics, 32)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_same_latents_and_pictures(config: VAEConfig | PretrainedVAEConfig) -> None:
    ours = codec(config)
    theirs = to_autoencoder_kl(ours)
    assert isinstance(theirs, AutoencoderKL)
    assert (theirs.config.scaling_factor, theirs.config.shift_factor, theirs.config.latents_mean) == (1, None, None)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    noise = torch.randn(2, *ours.latent_shape, generator=generator)
    with torch.no_grad():
        posterior = theirs.encode(images).latent_dist
    for sampled in (None, noise):
        expected = ours.encode(images, sampled)
        given = posterior.mean if sampled is None else posterior.mean + posterior.std * noise
        assert float((given - expected).abs().max() / expected.abs().max()) < 1e-4
    expected = ours.vae.decode(noise * ours.std + ours.mean)
    assert float((theirs.decode(noise).sample - expected).abs().max() / expected.abs().max()) < 1e-4
    assert float(expected.std()) > 0.01


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (VAEConfig(), "fast family"),
        (own(channels=(12, 16)), "norm_groups"),
        (PretrainedVAEConfig(family="AutoencoderTiny", source="t", settings=dict(AutoencoderTiny().config)), "Tiny"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(config: VAEConfig | PretrainedVAEConfig, reason: str) -> None:
    assert reason in why_not_autoencoder(config)
    statistics = LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=1.0)
    if isinstance(config, VAEConfig):
        with pytest.raises(UserError, match=reason):
            to_autoencoder_kl(Codec(build_vae(config), statistics, 32))


def test_the_family_named_diffusers_is_expressible_as_it_comes() -> None:
    assert why_not_autoencoder(VAEConfig(family="diffusers")) == ""
