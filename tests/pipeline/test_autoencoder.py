"""The VAE of a model or a run: found by name, whole, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from calotype.core.errors import CorruptFileError, UserError
from calotype.latents import ConvVAE, VAEConfig
from calotype.latents.encoding import weights_sha256
from calotype.pipeline import Run, load
from calotype.pipeline.autoencoder import load_autoencoder
from calotype.pipeline.bundle import save_bundle
from tests.pipeline.origins import put_up, with_vae


def test_a_models_vae_serves_as_one(class_run: Run, tmp_path: Path) -> None:
    expected = weights_sha256(class_run.load("cpu").codec.vae)
    for place in (class_run.folder, class_run.model, str(class_run.model)):
        vae = load_autoencoder(place)
        assert weights_sha256(vae) == expected
        assert all(parameter.requires_grad for parameter in vae.parameters())
    shutil.copytree(class_run.folder, tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "model")
    assert weights_sha256(load_autoencoder(tmp_path / "unfinished")) == expected
    shutil.rmtree(max((tmp_path / "unfinished" / "vae").glob("step-*")))
    with pytest.raises(UserError, match=r"first stage of .*unfinished is not done"):
        load_autoencoder(tmp_path / "unfinished")


def test_one_of_float16_is_trained_on_in_float32(class_run: Run, tmp_path: Path) -> None:
    save_bundle(load(class_run.model, "cpu"), tmp_path / "half", half=True)
    full = class_run.load("cpu").codec.vae.state_dict()
    for name, tensor in load_autoencoder(tmp_path / "half").state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, full[name], rtol=2**-11, atol=2**-24)


def test_a_folder_with_a_model_goes_before_a_shipped_one_of_its_name(
    class_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(class_run.model, tmp_path / "small")
    put_up(monkeypatch, tmp_path, tmp_path / "small")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    own = ConvVAE(VAEConfig(channels=(8, 16), norm_groups=8))
    with_vae(own, Path("small"))
    assert weights_sha256(load_autoencoder("small")) == weights_sha256(own)
    shutil.rmtree("small")
    assert weights_sha256(load_autoencoder("small")) == weights_sha256(class_run.load("cpu").codec.vae)
    with pytest.raises(UserError, match="no model 'smal': did you mean 'small'"):
        load_autoencoder("smal")


def test_what_is_none_is_refused_in_one_line(class_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_up(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no model 'nowhere': train one first"):
        load_autoencoder("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no model"):
        load_autoencoder(tmp_path / "empty")
    own = Path(shutil.copytree(class_run.model, tmp_path / "own"))
    weights = bytearray((own / "vae.safetensors").read_bytes())
    weights[-1] ^= 1
    (own / "vae.safetensors").write_bytes(weights)
    with pytest.raises(CorruptFileError, match=r"vae\.safetensors was altered"):
        load_autoencoder(own)
