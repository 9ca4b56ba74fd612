"""Encoders of Hugging Face: what they compute, what names them, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.text import encoder_fingerprint, load_text_encoder
from calotype.text.batching import CutWarning
from calotype.text.huggingface import HuggingFaceEncoder
from tests.text import encoders

CAPTIONS = ["a red heart", "cat", "a big blue cat a dog"]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A saved encoder of a kind; not to be changed."""
    home, made = tmp_path_factory.mktemp("encoders"), dict[str, Path]()

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = encoders.save(home / kind, kind)
        return made[kind]

    return of


@pytest.fixture
def folder(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    """A CLIP text encoder that a test may spoil."""
    return Path(shutil.copytree(saved("clip-projection"), tmp_path / "spoilt"))


@torch.no_grad()
def by_hand(kind: str, caption: str) -> tuple[Tensor, Tensor]:
    """pooled and tokens of one caption by itself, from transformers' module as it was before it was saved."""
    inputs = encoders.tokenizer()(caption, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    model = encoders.module(kind)
    if kind == "clip-whole":
        return model.get_text_features(**inputs).pooler_output[0], model.text_model(**inputs).last_hidden_state[0]
    inside = {"t5-whole": "encoder", "bert-headed": "bert"}.get(kind)
    model = getattr(model, inside) if inside else model
    outputs = model(**inputs)
    tokens = outputs.last_hidden_state[0]
    pooled = {"clip-projection": "text_embeds", "clip": "pooler_output"}.get(kind)
    return (getattr(outputs, pooled)[0] if pooled else tokens.mean(0)), tokens


@pytest.mark.parametrize(
    ("kind", "pooling", "dim"),
    [
        ("clip-projection", "projection", 12),
        ("clip", "pooler", 16),
        ("clip-whole", "projection", 12),
        ("bert", "mean", 16),
        ("bert-headed", "mean", 16),
        ("t5", "mean", 16),
        ("t5-whole", "mean", 16),
    ],
)
def test_agrees_with_transformers_for_each_caption_alone(saved, kind: str, pooling: str, dim: int) -> None:
    encoder = load_text_encoder(str(saved(kind)))
    assert isinstance(encoder, HuggingFaceEncoder)
    assert (encoder.pooling, encoder.dim, encoder.token_dim, encoder.id) == (pooling, dim, 16, kind)
    together = encoder.encode(CAPTIONS)
    assert together.pooled.shape == (3, dim)
    assert together.tokens.shape == (3, 8, 16)
    assert together.mask.sum(1).tolist() == [5, 3, 8]
    assert (together.tokens[~together.mask] == 0).all()
    for row, caption in enumerate(CAPTIONS):
        pooled, tokens = by_hand(kind, caption)
        torch.testing.assert_close(together.pooled[row], pooled, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(together.tokens[row, : len(tokens)], tokens, atol=2e-6, rtol=1e-5)
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_half_precision_weights_are_computed_with_in_full(folder: Path) -> None:
    encoders.module("clip-projection").half().save_pretrained(folder)
    encoder = load_text_encoder(str(folder))
    text = encoder.encode(CAPTIONS)
    assert {text.pooled.dtype, text.tokens.dtype} == {torch.float32}
    torch.testing.assert_close(text.pooled[1], by_hand("clip-projection", "cat")[0], atol=2e-2, rtol=2e-2)


def test_no_captions_and_none_at_all(saved) -> None:
    encoder = load_text_encoder(str(saved("bert")))
    text = encoder.encode([])
    assert (text.pooled.shape, text.tokens.shape, text.mask.shape) == ((0, 16), (0, 0, 16), (0, 0))
    assert encoder.encode([""]).mask.tolist() == [[True, True]]


def test_long_captions_are_cut_with_one_warning_that_counts_them(saved) -> None:
    encoder = load_text_encoder(str(saved("clip-projection")))
    assert encoder.max_tokens == 8  # of its positions, not the tokenizer's 16
    with pytest.warns(CutWarning, match=r"^2 of 3 captions have more than 8 tokens; their ends are not read$") as seen:
        cut = encoder.encode(["a red heart a red heart cat", "cat", "a red heart a red heart dog dog dog"])
    assert len(seen) == 1
    kept = encoder.encode(["a red heart a red heart"])
    torch.testing.assert_close(cut.pooled[[0, 2]], kept.pooled.expand(2, -1), atol=2e-6, rtol=1e-5)


def test_shards_and_a_pipelines_folders_are_the_same_encoder(saved, tmp_path: Path) -> None:
    plain = load_text_encoder(str(saved("bert")))
    shards = load_text_encoder(str(encoders.save(tmp_path / "shards", "bert", max_shard_size="4KB")))
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert torch.equal(shards.encode(CAPTIONS).tokens, plain.encode(CAPTIONS).tokens)
    encoders.module("bert").save_pretrained(tmp_path / "pipeline" / "text_encoder")
    encoders.tokenizer().save_pretrained(tmp_path / "pipeline" / "tokenizer")
    inside = load_text_encoder(str(tmp_path / "pipeline"))
    assert torch.equal(inside.encode(CAPTIONS).tokens, plain.encode(CAPTIONS).tokens)
    assert inside.fingerprint == plain.fingerprint != shards.fingerprint


def test_the_fingerprint_is_of_weights_and_vocabulary(folder: Path, saved) -> None:
    first = encoder_fingerprint(str(folder))
    assert first == load_text_encoder(str(folder)).fingerprint == encoder_fingerprint(str(saved("clip-projection")))
    (folder / "vocab.txt").write_text("beside tokenizer.json it says nothing more")
    assert encoder_fingerprint(str(folder)) == first
    for name in (WEIGHTS, "tokenizer.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"cat", b"cow") if name != WEIGHTS else content[:-1] + b"\x01")
        assert encoder_fingerprint(str(folder)) != first
        (folder / name).write_bytes(content)
    assert encoder_fingerprint(str(folder)) == first
    assert encoder_fingerprint("minilm") == load_text_encoder("minilm").fingerprint


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def _forget(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if "fc1" not in name}, folder / WEIGHTS)


def _shard(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors"}}))


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_drop("config.json"), r"spoilt has no config\.json: give a folder that save_pretrained"),
        (_drop("tokenizer.json"), r"spoilt has no tokenizer\.json"),
        (_pickle, r"spoilt has no model\.safetensors: only safetensors are read"),
        (_cut, r"cannot be loaded \(.*\): restore its files"),
        (_forget, r"spoilt has no weights '.*fc1\.\w+': restore its files"),
        (_shard, r"model-1-of-2\.safetensors is missing"),
        (_config(model_type="abacus"), r"cannot be loaded \(.*abacus.*\)"),
        (_config(hidden_size=20), r"cannot be loaded \("),
    ],
)
def test_a_spoilt_folder_is_one_line(folder: Path, spoil: Callable[[Path], None], line: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=line) as caught:
        load_text_encoder(str(folder))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_encoder_is_refused(saved, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, line in (
        (str(saved("clip-vision")), r"is a clip_vision_model, not an encoder of text alone: choose"),
        ("minilmm", r"no text encoder 'minilmm': did you mean 'minilm'\?, or give a folder or a hub id"),
        ("a/b/c", r"text encoder 'a/b/c' is neither a folder nor a hub id \(owner/name\)"),
        (str(tmp_path / "file"), r"file' is a file: give a folder"),
    ):
        with pytest.raises(UserError, match=line):
            load_text_encoder(name)


def test_code_beside_the_weights_is_not_run(folder: Path) -> None:
    (folder / "modeling.py").write_text(f"open({str(folder / 'run')!r}, 'w')")
    _config(model_type="abacus", auto_map={"AutoConfig": "modeling.C", "AutoModel": "modeling.M"})(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_text_encoder(str(folder))
    assert not (folder / "run").exists()


def test_a_missing_extra_names_the_command_that_mends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs package 'transformers': pip install 'calotype\[hf\]'"):
        load_text_encoder(str(folder))
