"""The recipe of the second walkthrough: text to latents by levels of noise_rate, x0 and mean absolute error."""

from calotype.network.unet import walkthrough_config
from calotype.recipes.recipe import ProcessSection, Recipe, SamplingSection, VAESection
from calotype.training.denoiser_objective import DenoiserLossConfig
from calotype.training.optimizers import OptimizerConfig
from calotype.training.post_hoc import PostHocConfig
from calotype.training.settings import LoopConfig


def text_128(size: int) -> Recipe:
    """128x128 to 4x16x16; x_t = sqrt(1 - t^2) x0 + t eps; x0, MAE; 15 % dropout; 70 alpha-steps at guidance 4.

    The VAE is our own, trained first, or any diffusers AutoencoderKL by `vae.pretrained`. The text's width is filled in
    from the encoder.
    """
    return Recipe(
        name="text-128",
        size=size,
        condition="text",
        vae=VAESection(
            training=LoopConfig(
                batch_size=16,
                ema_halflife=1_100,
                validate_every=1000,
                optimizer=OptimizerConfig(name="muon", lr=3e-3, warmup=50),
            )
        ),
        process=ProcessSection(schedule="angle"),
        network=walkthrough_config(block_depth=1, emb_size=0, latent_channels=4),
        loss=DenoiserLossConfig(parameterization="x0", distance="l1", density="folded-normal", condition_dropout=0.15),
        training=LoopConfig(
            post_hoc=PostHocConfig(),
            batch_size=16,
            ema_halflife=5_000,
            score_every=2000,
            optimizer=OptimizerConfig(lr=1e-3, warmup=200),
        ),
        sampling=SamplingSection(
            sampler="alpha",
            num_steps=70,
            grid="trailing",  # the walkthrough's cube-root levels lose contrast and colour (docs/log.md)
            guidance_scale=4.0,
            threshold="dynamic",
        ),
    )
