"""VAE and KL, against closed forms."""

from __future__ import annotations

import pytest
import torch

from calotype.core.errors import UserError
from calotype.latents import ConvVAE, VAEConfig, kl_divergence, reparameterize

TINY = VAEConfig(channels=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1))


F8 = VAEConfig(channels=(8, 16))
KL_F4 = VAEConfig(family="diffusers", channels=(8, 8, 16), norm_groups=4, latent_channels=3)
# Both families at f4 and f8, and other numbers of latent channels.
SHAPES = [
    (4, 4, VAEConfig(channels=(16,))),
    (4, 8, VAEConfig(patch=2, channels=(8, 16), latent_channels=8, decoder_blocks=(1, 2))),
    (8, 4, F8),
    (8, 16, VAEConfig(patch=2, channels=(8, 8, 8), latent_channels=16)),
    (4, 3, KL_F4),
    (8, 1, VAEConfig(family="diffusers", channels=(8, 8, 8, 16), norm_groups=8, latent_channels=1, blocks=2)),
]


@pytest.mark.parametrize(("f", "latent_channels", "config"), SHAPES)
def test_shapes(f: int, latent_channels: int, config: VAEConfig) -> None:
    vae, images = ConvVAE(config), torch.rand(2, 3, 32, 48)
    mean, logvar = vae.encode(images)
    assert config.downsampling == f
    assert mean.shape == logvar.shape == (2, latent_channels, 32 // f, 48 // f)
    assert vae.decode(mean).shape == images.shape
    with pytest.raises(ValueError, match="divisible"):
        vae.encode(torch.rand(1, 3, 33, 33))


def test_either_family_is_f8_unless_told_otherwise() -> None:
    assert VAEConfig().downsampling == VAEConfig(family="diffusers").downsampling == 8


@pytest.mark.parametrize(
    "config", [F8, KL_F4, VAEConfig(family="diffusers", channels=(16, 16), middle_attention=False)]
)
def test_every_parameter_learns(config: VAEConfig) -> None:
    torch.manual_seed(0)
    vae = ConvVAE(config)
    for parameter in vae.parameters():
        if parameter.detach().abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, logvar = vae.encode(images)
    z_raw = reparameterize(mean, logvar, torch.randn_like(mean))
    ((vae.decode(z_raw) - images).square().mean() + kl_divergence(mean, logvar)).backward()
    assert [n for n, p in vae.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []
    assert vae.last_weight.shape[0] in (3, 3 * 16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"blocks": 2}, "family 'folded' has no 'blocks': leave it null"),
        ({"family": "diffusers", "patch": 4}, "family 'diffusers' has no 'patch'"),
        ({"channels": (8, 8), "encoder_blocks": (1,)}, "encoder_blocks lists 1 levels, channels 2: give one number"),
        ({"channels": (8, 0)}, "not all above 0"),
        ({"family": "difusers"}, "unknown value 'difusers': did you mean 'diffusers'"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        VAEConfig.parse(settings, "VAE")


def test_which_vaes_diffusers_can_compute() -> None:
    assert KL_F4.why_not_diffusers() == ""
    assert "fast family" in F8.why_not_diffusers()
    assert "norm_groups=16" in VAEConfig(family="diffusers", channels=(16, 24)).why_not_diffusers()


def test_one_batch_can_be_overfitted() -> None:
    torch.manual_seed(0)
    vae, images = ConvVAE(TINY), torch.rand(4, 3, 16, 16) * 2 - 1
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (vae.decode(vae.encode(images)[0]) - images).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02, "a VAE without noise must be able to remember four pictures"


def test_kl_by_hand_and_by_torch() -> None:
    assert float(kl_divergence(torch.zeros(1, 2), torch.zeros(1, 2))) == 0
    mean, logvar = torch.randn(3, 4), torch.randn(3, 4)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).mean()
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)


def test_reparameterize_has_the_posteriors_moments() -> None:
    torch.manual_seed(0)
    z_raw = reparameterize(torch.full((100_000,), 2.0), torch.full((100_000,), 2 * 0.5**0.5), torch.randn(100_000))
    assert abs(float(z_raw.mean()) - 2) < 0.03
    assert abs(float(z_raw.std()) - 2.718281828 ** (0.5**0.5)) < 0.03
