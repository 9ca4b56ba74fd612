"""Autoencoders by themselves: written, read, found by name, and refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import verify_folder, write_folder
from calotype.core.tensors import load_tensors
from calotype.latents import ConvVAE, VAEConfig
from calotype.latents.encoding import weights_sha256
from calotype.pipeline import Run
from calotype.pipeline.autoencoder import load_autoencoder, save_autoencoder
from tests.pipeline.origins import put_up

SMALL = VAEConfig(channels=(8, 16), norm_groups=8)
FACTS = {
    "name": "small",
    "data": {"source": "drawings", "licence": "CC0", "attribution": "A. Painter", "pictures": 12},
    "measured": {"held_out_psnr": 23.4567},
    "versions": {"calotype": "1"},
    "limits": "Faces are beyond it.",
}


@pytest.fixture
def vae() -> ConvVAE:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ConvVAE(SMALL)


@pytest.fixture
def folder(vae: ConvVAE, tmp_path: Path) -> Path:
    save_autoencoder(vae, FACTS, tmp_path / "small")
    return tmp_path / "small"


def test_what_is_written_is_read_again(vae: ConvVAE, folder: Path) -> None:
    verify_folder(folder, sealed=True)
    again, facts = load_autoencoder(folder)
    assert facts == FACTS
    assert again.config == SMALL
    assert weights_sha256(again) == weights_sha256(vae)
    assert all(parameter.requires_grad for parameter in again.parameters())
    card = (folder / "README.md").read_text()
    for words in ("vae.from=small", "CC0", "A. Painter", "23.46", "Faces are beyond it.", "calotype 1"):
        assert words in card
    assert "None" not in card


def test_a_bare_one_has_a_card_without_empty_sections(vae: ConvVAE, tmp_path: Path) -> None:
    save_autoencoder(vae, {}, tmp_path / "bare")
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "licence: not stated" in card
    sections = card.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == ["Start from it", "Data"]
    assert all(len(section.split()) > 5 for section in sections)


def test_float16_is_half_the_bytes_and_read_as_float32(vae: ConvVAE, folder: Path, tmp_path: Path) -> None:
    save_autoencoder(vae, FACTS, tmp_path / "half", half=True)
    sizes = [(path / "vae.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "half" / "vae.safetensors").values()} == {torch.float16}
    again, _ = load_autoencoder(tmp_path / "half")
    for name, tensor in vae.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=2**-11, atol=2**-24)
    with torch.no_grad():
        next(vae.parameters()).fill_(1e6)
    with pytest.raises(UserError, match="float16 cannot hold"):
        save_autoencoder(vae, FACTS, tmp_path / "half", half=True)
    verify_folder(tmp_path / "half", sealed=True)  # the old one stands


def test_a_models_vae_serves_as_one(class_run: Run, tmp_path: Path) -> None:
    expected = weights_sha256(class_run.load("cpu").codec.vae)
    for place in (class_run.folder, class_run.model, str(class_run.model)):
        vae, facts = load_autoencoder(place)
        assert weights_sha256(vae) == expected
        assert facts["name"] == "run"
        assert all(parameter.requires_grad for parameter in vae.parameters())
    shutil.copytree(class_run.folder, tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "model")
    assert weights_sha256(load_autoencoder(tmp_path / "unfinished")[0]) == expected
    shutil.rmtree(max((tmp_path / "unfinished" / "vae").glob("step-*")))
    with pytest.raises(UserError, match=r"first stage of .*unfinished is not done"):
        load_autoencoder(tmp_path / "unfinished")


def test_a_shipped_one_goes_before_a_folder_of_its_name(
    vae: ConvVAE, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_up(monkeypatch, tmp_path, folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with torch.no_grad():
        vae.last_weight.zero_()
    save_autoencoder(vae, {"name": "mine"}, Path("small"))
    assert load_autoencoder("small")[1]["name"] == "mine"
    shutil.rmtree("small")
    assert load_autoencoder("small")[1]["name"] == "small"
    save_autoencoder(vae, {"name": "mine"}, Path("small"))
    assert load_autoencoder(Path("small").absolute())[1]["name"] == "mine"
    with pytest.raises(UserError, match="no autoencoder 'smal': did you mean 'small'"):
        load_autoencoder("smal")


def test_what_is_none_is_refused_in_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_up(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="no autoencoder 'nowhere': give the folder of a run"):
        load_autoencoder("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no autoencoder"):
        load_autoencoder(tmp_path / "empty")
    written = json.loads((folder / "autoencoder.json").read_text())
    for change, told in (
        ({"format_version": 2}, "has format 2, this calotype reads 1"),
        ({"more": 1}, "is not an autoencoder's"),
        ({"facts": []}, "is not an autoencoder's"),
        ({"network": {"chanels": [8]}}, "unknown key 'chanels'.*did you mean 'channels'"),
        ({"network": {"channels": [8, 32]}}, "another architecture"),
    ):
        rewritten = {**written, **change}

        def fill(aside: Path, rewritten: object = rewritten) -> None:
            shutil.copy(folder / "vae.safetensors", aside)
            (aside / "autoencoder.json").write_text(json.dumps(rewritten))

        write_folder(tmp_path / "other", fill)
        with pytest.raises(UserError, match=told):
            load_autoencoder(tmp_path / "other")
    weights = bytearray((folder / "vae.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "vae.safetensors").write_bytes(weights)
    with pytest.raises(CorruptFileError, match=r"vae\.safetensors was altered"):
        load_autoencoder(folder)
