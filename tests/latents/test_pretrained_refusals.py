"""What is no VAE that can be used is one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import CorruptFileError, UserError
from calotype.latents.pretrained import load_pretrained_vae, pretrained_vae_config
from tests.latents.pretrained_making import WEIGHTS, edit, make_tiny, rebuilt


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", r"nowhere is neither a folder nor a hub id \(owner/name\): give a folder that diffusers'"),
        ("a/b/c", r"a/b/c is neither a folder nor a hub id"),
        ("nowhere", r"nowhere is neither a folder nor a hub id"),
        (__file__, r"test_pretrained_refusals.py is a file: give a folder"),
        (str(Path(__file__).parent), r"latents has no config.json: give a folder"),
    ],
)
def test_what_is_no_folder(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pretrained_vae(name)


def test_relative_file_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "vae.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"some/vae\.ckpt is a file"):
        load_pretrained_vae("some/vae.ckpt")


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (truncate, CorruptFileError, r"model\.safetensors is not whole .*truncated"),
        (lambda f: (f / WEIGHTS).rename(f / "model.bin"), UserError, rf"has no {WEIGHTS}: save it again with safe"),
        (lambda f: (f / "config.json").write_text("{"), CorruptFileError, r"config\.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), UserError, r"config\.json describes no diffusers model"),
        (lambda f: (f / "config.json").write_text("{}"), UserError, r"config\.json describes no diffusers model"),
        (
            lambda f: edit(f, _class_name="VQModel"),
            UserError,
            r"describes VQModel: choose AutoencoderKL or AutoencoderTiny",
        ),
        (lambda f: edit(f, latent_chanels=4), UserError, r"unknown key 'latent_chanels': did you mean 'latent_channel"),
        (
            lambda f: edit(f, act_fn="sillu"),
            UserError,
            r"VAE 'spoilt': diffusers cannot build it \(.*sillu.*restore its",
        ),
        (
            lambda f: edit(f, down_block_types=["Down"]),
            UserError,
            r"'spoilt': diffusers cannot build it \(.*restore its",
        ),
        (lambda f: edit(f, latent_channels=4), UserError, rf"{WEIGHTS} does not fit the config.json beside it \(size"),
        (lambda f: edit(f, layers_per_block=2), UserError, r"beside it \(Missing key.*restore both files"),
        (lambda f: edit(f, use_quant_conv=False), UserError, r"beside it \(Unexpected key"),
        (lambda f: edit(f, in_channels=1), UserError, r"'spoilt' takes pictures of 1 channels and gives 3: choose one"),
        (lambda f: edit(f, out_channels=4), UserError, r"'spoilt' takes pictures of 3 channels and gives 4"),
    ],
)
def test_spoilt_folder_is_one_line(
    folder: Path, spoil: Callable[[Path], Any], kind: type[UserError], words: str
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=words) as caught:
        load_pretrained_vae(folder)
    assert type(caught.value) is kind
    if "fit" not in words and "beside" not in words:  # what only the weights themselves can tell
        with pytest.raises(kind, match=words):
            pretrained_vae_config(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bad_description(saved: Path) -> None:
    description = load_pretrained_vae(saved).config.model_dump(mode="json")
    for change, words in (
        ({"family": "AutoencoderTinny"}, "unknown value 'AutoencoderTinny': did you mean 'AutoencoderTiny'"),
        ({"sauce": "x"}, "unknown key 'sauce': did you mean 'source'"),
        ({"settings": {"latent_chanels": 4}}, "'tiny': unknown key 'latent_chanels': did you mean 'latent_channels'"),
    ):
        with pytest.raises(UserError, match=words):
            rebuilt({**description, **change})


def test_a_tiny_autoencoder_that_changes_the_size_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "odd", decoder_block_out_channels=(4, 4), num_decoder_blocks=(1, 1))
    with pytest.raises(UserError, match="'odd' divides sides by 4 and multiplies them by 2"):
        load_pretrained_vae(folder)


@pytest.mark.parametrize("missing", ["diffusers", "owner/name"])
def test_without_diffusers(saved: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Said at once, whatever was asked for; loading a bundle asks the same."""
    description = load_pretrained_vae(saved).config.model_dump(mode="json")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    words = r"needs package 'diffusers': pip install 'calotype\[diffusers\]'"
    with pytest.raises(UserError, match=words):
        load_pretrained_vae(saved if missing == "diffusers" else missing)
    with pytest.raises(UserError, match=words):
        rebuilt(description)
