"""A diffusers folder as a bundle: the same weights draw the same picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import Tensor

import calotype
from calotype.core.errors import UserError
from calotype.core.random import seeded_noise
from calotype.network import Condition, UNet
from calotype.pipeline.export.diffusers import export_diffusers
from calotype.pipeline.importing import import_diffusers
from calotype.pipeline.stock_settings import read_scheduler, unet_config
from tests.pipeline.stock_models import stock_model
from tests.pipeline.test_export_diffusers_unet import scrambled

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 24),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
UNETS = {
    "added": UNET,
    "scale and shift": {**UNET, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
    "sines first, one head": {**UNET, "flip_sin_to_cos": False, "attention_head_dim": None, "layers_per_block": 2},
    "no middle attention, own width": {**UNET, "add_attention": False, "time_embedding_dim": 40, "norm_eps": 1e-6},
}


@pytest.mark.parametrize("settings", UNETS.values(), ids=UNETS)
def test_a_unet_comes_in(settings: dict[str, Any]) -> None:
    from calotype.pipeline.importing import fill

    theirs = UNet2DModel(**settings)
    scrambled(theirs)
    network = UNet(unet_config(theirs.config)).eval()
    fill(network, theirs)
    x_t, time = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 321.0, 999.0])
    with torch.no_grad():
        expected, given = theirs(x_t, time).sample, network(x_t, time, Condition.nothing(3))
    assert float((expected - given).abs().max() / expected.abs().max()) < 1e-5


def saved(folder: Path, **scheduler: Any) -> tuple[Any, Any, Any]:
    """A pipeline's three parts, made and saved by diffusers."""
    unet = UNet2DModel(**UNET)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=4,
        scaling_factor=0.4,
        shift_factor=0.3,
    )
    scrambled(unet)
    scrambled(vae, 1)
    table = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    steps = DDIMScheduler(**{**table, "prediction_type": "v_prediction", "timestep_spacing": "trailing", **scheduler})
    for name, part in (("unet", unet), ("vqvae", vae), ("scheduler", steps)):
        part.save_pretrained(folder / name)
    return unet, vae, steps


@torch.no_grad()
def their_picture(unet: Any, vae: Any, scheduler: Any, x: Tensor) -> Tensor:
    """As diffusers' latent pipelines sample."""
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    return vae.decode(x / vae.config.scaling_factor + vae.config.shift_factor).sample.clamp(-1, 1)


def test_a_stock_pipeline_draws_the_same_picture(tmp_path: Path) -> None:
    parts = saved(tmp_path / "theirs")
    imported = import_diffusers(tmp_path / "theirs", tmp_path / "bundle")
    model = calotype.load(str(tmp_path / "bundle"), device="cpu")
    assert (model.size, imported.size, model.recipe.process.schedule) == (16, 16, "scaled-linear")
    assert model.codec.statistics.mean == (0.3,) * 3
    assert model.codec.statistics.std == (2.5,) * 3
    expected = their_picture(*parts, seeded_noise(torch.arange(5, 7), 0, (3, 8, 8)))
    assert float(expected.std()) > 0.05
    for ours in (model, imported):
        given = ours.sample_tensor(num_images=2, seed=5, num_steps=10)
        assert float((given - expected).abs().mean()) * 127.5 < 0.05
    again = model.encode(expected)
    theirs = (parts[1].encode(expected).latent_dist.mean - 0.3) * 0.4
    torch.testing.assert_close(again, theirs, rtol=1e-4, atol=1e-4)


def test_out_and_back(tmp_path: Path) -> None:
    """What was exported comes in again and draws what it drew before; it is exportable once more."""
    before = stock_model(sampling={"sampler": "ddim", "num_steps": 10})
    export_diffusers(before, tmp_path)
    after = import_diffusers(tmp_path, tmp_path / "bundle")
    assert after.recipe.process.build() == before.process
    assert after.codec.statistics.mean == (0.0,) * 4
    expected, given = (model.sample_tensor(num_images=2, num_steps=10, sampler="ddim") for model in (before, after))
    assert float((given - expected).abs().mean()) * 127.5 < 0.05
    (tmp_path / "again").mkdir()
    assert export_diffusers(after, tmp_path / "again")["parity"]["picture_mean_of_255"] < 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"freq_shift": 1},
        {"time_embedding_type": "fourier"},
        {"downsample_type": "resnet"},
        {"downsample_padding": 0},
        {"num_class_embeds": 3},
        {"center_input_sample": True},
        {"act_fn": "gelu"},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None},
        {"attention_head_dim": 10},
        {"down_block_types": ("SkipDownBlock2D", "AttnDownBlock2D")},
        {"up_block_types": ("UpBlock2D", "UpBlock2D")},
        {"out_channels": 6},
    ],
    ids=lambda change: list(change)[-1],
)
def test_what_ours_does_not_compute_is_named(change: dict[str, Any]) -> None:
    settings = dict(UNet2DModel(**UNET).config) | change
    with pytest.raises(UserError, match=list(change)[-1]):
        unet_config(settings)


TABLE = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000}


def test_schedulers() -> None:
    process, prediction, sampling, bound = read_scheduler({**TABLE, "clip_sample": True, "clip_sample_range": 3.0})
    assert (process.schedule, prediction, sampling.sampler, sampling.threshold, bound) == (
        "linear",
        "eps",
        "ddpm",
        "static",
        3.0,
    )
    process, prediction, sampling, bound = read_scheduler(
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    )
    assert (process.schedule, prediction, sampling.shift, bound) == ("rectified-flow", "flow", 3.0, 2.81)
    edm = {"_class_name": "EDMEulerScheduler", "sigma_data": 1.0, "sigma_min": 0.01, "sigma_max": 50.0}
    process, prediction, _, _ = read_scheduler(edm)
    assert (process.sigma_min, process.sigma_max, prediction) == (0.01, 50.0, "edm")


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "flow_prediction"},
        {"trained_betas": [0.1]},
        {"thresholding": True},
        {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 100},
    ],
    ids=lambda change: list(change)[-1],
)
def test_schedulers_that_ours_does_not_know_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=list(change)[-1]):
        read_scheduler({**TABLE, **change})


def test_folders_that_cannot_come_in(tmp_path: Path) -> None:
    """Each in one line, and nothing is left at `out`."""
    out = tmp_path / "out"

    def refused(folder: Path, words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            import_diffusers(folder, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    refused(tmp_path / "nowhere", "not a folder")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    refused(theirs, "unet/config.json")
    saved(theirs)
    weights = theirs / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(theirs, "cannot be read")
    weights.unlink()
    refused(theirs, "cannot be read")
    (theirs / "unet" / "config.json").write_text(json.dumps({"_class_name": UNet2DConditionModel.__name__}))
    refused(theirs, "UNet2DConditionModel")
    saved(theirs)
    (theirs / "scheduler" / "scheduler_config.json").unlink()
    refused(theirs, "scheduler_config.json")
    out.mkdir()
    (out / "kept").touch()
    with pytest.raises(UserError, match="not empty"):
        import_diffusers(theirs, out)
