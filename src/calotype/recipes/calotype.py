"""The default recipe: every choice from measurement (docs/log.md has the figures)."""

from calotype.network.unet import UNetConfig
from calotype.recipes.recipe import Recipe, VAESection
from calotype.training.adversarial import SMALLEST_JUDGED
from calotype.training.denoiser_objective import DenoiserLossConfig
from calotype.training.optimizers import OptimizerConfig
from calotype.training.post_hoc import PostHocConfig
from calotype.training.settings import LoopConfig
from calotype.training.vae_objective import VAELossConfig


def calotype(size: int) -> Recipe:
    """VAE of factor 8 to 4 channels, then sharpened; U-Net of two levels, v, cosine, cleaner levels more often."""
    return Recipe(
        name="calotype",
        size=size,
        vae=VAESection(
            loss=VAELossConfig(adversarial_weight=0.5 if size >= SMALLEST_JUDGED else 0.0),
            training=LoopConfig(
                batch_size=16,
                ema_halflife=1_100,
                validate_every=500,
                optimizer=OptimizerConfig(name="muon", lr=3e-3, warmup=50),
            ),
        ),
        network=UNetConfig(map_channels=8),
        loss=DenoiserLossConfig(density="logit-normal", density_loc=-0.7, rewording=0.5),
        training=LoopConfig(
            post_hoc=PostHocConfig(),
            batch_size=64,
            ema_halflife=8_000,
            score_every=500,
            optimizer=OptimizerConfig(lr=1.5e-3, warmup=50),
        ),
    )
