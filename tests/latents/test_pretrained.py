"""A diffusers VAE as first stage: the numbers that diffusers' own loader gives."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.images.pixels import to_float
from calotype.latents import Codec, LatentStatistics, encode_pictures, pretrained
from calotype.latents.pretrained import load_pretrained_vae, pretrained_vae_config
from tests.latents.encoding_making import picture_set
from tests.latents.pretrained_making import WEIGHTS, assert_same, edit, make_tiny, pictures, rebuilt, theirs


def test_agrees_with_diffusers(saved: Path) -> None:
    vae = load_pretrained_vae(saved)
    assert (vae.config.latent_channels, vae.config.downsampling, vae.config.source) == (3, 4, "tiny")
    assert_same(vae, theirs(saved))
    mean, logvar = vae.encode(pictures())
    assert mean.shape == logvar.shape == (2, 3, 4, 6)
    assert vae.decode(mean).shape == (2, 3, 16, 24)
    assert not vae.training
    assert not any(parameter.requires_grad for parameter in vae.parameters())


@torch.no_grad()
def test_tiny_autoencoder_agrees_with_diffusers(tmp_path: Path) -> None:
    """AutoencoderTiny: latents as its encoder gives them, hardly any variance, none of its own scales."""
    folder = make_tiny(tmp_path / "taesd", latent_magnitude=7, latent_shift=0.3, scaling_factor=2.0)
    vae, images = load_pretrained_vae(folder), pictures()
    assert (vae.config.family, vae.config.latent_channels, vae.config.downsampling) == ("AutoencoderTiny", 3, 4)
    mean, logvar = vae.encode(images)
    torch.testing.assert_close(mean, theirs(folder).encode(images).latents, rtol=1e-5, atol=1e-5)
    assert mean.shape == logvar.shape == (2, 3, 4, 6)
    assert logvar.exp().sqrt().max() < 1e-4
    decoded = vae.decode(mean)
    torch.testing.assert_close(decoded, theirs(folder).decode(mean).sample, rtol=1e-5, atol=1e-5)
    assert decoded.shape == images.shape
    again = rebuilt(json.loads(json.dumps(vae.config.model_dump(mode="json"))))
    again.load_state_dict(vae.state_dict())
    assert again.config == vae.config
    assert torch.equal(again.decode(mean), decoded)


def test_a_tiny_autoencoders_latents_are_standardised_like_any(tmp_path: Path) -> None:
    vae, drawn = load_pretrained_vae(make_tiny(tmp_path / "taesd")), picture_set(*range(12))
    latents = encode_pictures(vae, drawn, tmp_path / "latents", mirrored=False)
    x0 = Codec(vae, latents.statistics, 16).encode(to_float(drawn.pixels))
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(x0.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)


def test_config_alone_is_the_same_and_reads_no_weights(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = saved, make_tiny(tmp_path / "taesd")
    expected = [load_pretrained_vae(folder).config for folder in folders]
    monkeypatch.setattr(pretrained, "load_tensors", None)
    assert [pretrained_vae_config(folder) for folder in folders] == expected


def test_sides_must_be_divisible(saved: Path) -> None:
    vae = load_pretrained_vae(str(saved))
    for height, width in ((16, 18), (18, 16)):
        with pytest.raises(ValueError, match=rf"divisible by 4 on both sides, got \({height}, {width}\)"):
            vae.encode(pictures(1, height, width))


@pytest.mark.parametrize(("pixels", "sizes"), [(2 * 16 * 24, [2, 2, 1]), (16 * 24 - 1, [1] * 5), (10**6, [5])])
def test_memory_is_bounded(saved: Path, monkeypatch: pytest.MonkeyPatch, pixels: int, sizes: list[int]) -> None:
    """At most so many pixels at once, at least one picture, whatever the batch; the result does not depend on it."""
    vae, images = load_pretrained_vae(saved), pictures(5)
    whole = theirs(saved)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for part, batches in seen.items():
        hook = lambda _module, given, _gave, batches=batches: batches.append(len(given[0]))  # noqa: E731
        getattr(vae.autoencoder, part).register_forward_hook(hook)
    monkeypatch.setattr(pretrained, "PIXELS_AT_ONCE", pixels)
    mean, logvar = vae.encode(images)
    decoded = vae.decode(mean)
    assert seen == {"encoder": sizes, "decoder": sizes}
    posterior = whole.encode(images).latent_dist
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded, whole.decode(mean).sample, rtol=1e-4, atol=1e-5)


def test_sixteen_pictures_of_128_pixels_at_once() -> None:
    parts = pretrained._parts(torch.zeros(40, 1), 128 * 128)
    assert [len(part) for part in parts] == [16, 16, 8]


def test_description_builds_it_again_without_the_folder(folder: Path) -> None:
    edit(folder, act_fn=None, use_quant_conv=None)  # an old config lacks what later became a setting
    vae = load_pretrained_vae(folder)
    expected = theirs(folder)
    shutil.rmtree(folder)
    words = json.dumps(vae.config.model_dump(mode="json"))
    again = rebuilt(json.loads(words))
    assert again.fingerprint != vae.fingerprint, "built empty"
    again.load_state_dict(vae.state_dict())
    assert again.fingerprint == vae.fingerprint
    assert again.config == vae.config
    assert json.dumps(again.config.model_dump(mode="json")) == words
    assert_same(again, expected)
    assert vae.config.source == "spoilt"
    assert str(folder.parent) not in words, "no path of this machine travels in a bundle"
    settings = vae.config.settings
    assert settings["scaling_factor"] == 0.5, "kept for an export"
    assert settings["use_quant_conv"] is True, "what diffusers left at its default is written down"


def test_fingerprint_is_of_the_weights(folder: Path) -> None:
    first, second = load_pretrained_vae(folder), load_pretrained_vae(folder)
    assert first.fingerprint == second.fingerprint
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / WEIGHTS).items()):
        digest.update(f"{name} torch.float32 {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert first.fingerprint == digest.hexdigest()
    codec = Codec(first, LatentStatistics(mean=(1.0,) * 3, std=(2.0,) * 3, bound=3.0), 16)
    assert codec.vae.fingerprint == second.fingerprint, "latent statistics are no part of it"
    weight = second.autoencoder.decoder.conv_out.weight.data
    weight[-1, -1, -1, -1] = torch.nextafter(weight[-1, -1, -1, -1], torch.tensor(9.0))
    assert second.fingerprint != first.fingerprint


def test_gradients_pass(saved: Path) -> None:
    images = pictures().requires_grad_()
    vae = load_pretrained_vae(saved)
    vae.decode(vae.encode(images)[0]).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_codec_measures_its_latents(saved: Path, tmp_path: Path) -> None:
    vae, drawn = load_pretrained_vae(saved), picture_set(*range(12))
    images = to_float(drawn.pixels)
    latents = encode_pictures(vae, drawn, tmp_path, mirrored=False)
    codec = Codec(vae, latents.statistics, 16)
    assert codec.latent_shape == (3, 4, 4)
    x0 = codec.encode(images)
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    std = latents.posterior(torch.arange(12))[1]
    spread = x0.var((0, 2, 3), unbiased=False) + (std / codec.std).square().mean((0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(3), atol=1e-3, rtol=0)
    z_raw = theirs(saved).encode(images).latent_dist.mean
    torch.testing.assert_close(codec.decode(x0), theirs(saved).decode(z_raw).sample.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_former_names_of_attention(folder: Path) -> None:
    """The Stable Diffusion VAEs are older than diffusers 0.15 and name their attention otherwise."""
    expected = theirs(folder)
    tensors = load_file(folder / WEIGHTS)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        renamed = {name: name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.") for name in tensors}
        assert sum(name != former for name, former in renamed.items()) == 4, "weight and bias, encoder and decoder"
        tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    assert_same(load_pretrained_vae(folder), expected)


def test_half_precision_file_becomes_float32(folder: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(halves, folder / "diffusion_pytorch_model.fp16.safetensors")
    assert_same(load_pretrained_vae(folder), theirs(folder))  # the whole one is preferred
    (folder / WEIGHTS).unlink()
    vae = load_pretrained_vae(folder)
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, halves[name].float()) for name, tensor in vae.autoencoder.state_dict().items())


def test_home_is_known(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load_pretrained_vae("~/tiny").config.source == "tiny"
    monkeypatch.chdir(saved)
    assert load_pretrained_vae(".").config.source == "tiny"


def test_vae_of_a_pipeline_folder(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    vae = load_pretrained_vae(tmp_path / "pipeline")
    assert vae.config.source == "pipeline"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint


def test_importing_brings_no_diffusers() -> None:
    program = (
        "import sys, calotype.latents.pretrained; "
        "assert not {'diffusers', 'huggingface_hub', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
