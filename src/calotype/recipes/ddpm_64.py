"""The recipe of the first walkthrough: DDPM in the latents of a convolutional VAE, as Ho et al. (2020) have it."""

from calotype.network.unet import UNetConfig
from calotype.recipes.recipe import ProcessSection, Recipe, SamplingSection, VAESection
from calotype.training.denoiser_objective import DenoiserLossConfig
from calotype.training.optimizers import OptimizerConfig
from calotype.training.post_hoc import PostHocConfig
from calotype.training.settings import LoopConfig


def ddpm_64(size: int) -> Recipe:
    """Own VAE 64x64 to 4x8x8; unconditional; eps, MSE, linear betas, T = 1000; every step of the posterior taken."""
    return Recipe(
        name="ddpm-64",
        size=size,
        condition="none",
        vae=VAESection(
            share=0.3,
            training=LoopConfig(
                batch_size=16,
                ema_halflife=1_100,
                validate_every=1000,
                optimizer=OptimizerConfig(name="muon", lr=3e-3, warmup=50),
            ),
        ),
        process=ProcessSection(schedule="linear", num_train_steps=1000),
        network=UNetConfig(attention=(True, True)),
        loss=DenoiserLossConfig(parameterization="eps"),
        training=LoopConfig(
            post_hoc=PostHocConfig(),
            batch_size=64,
            ema_halflife=22_000,
            score_every=500,
            optimizer=OptimizerConfig(lr=2e-3, warmup=200),
        ),
        sampling=SamplingSection(sampler="ddpm", num_steps=1000, guidance_scale=1.0),
    )
