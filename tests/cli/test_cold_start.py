"""What a drawing command loads on its way to the first picture, and what it does while torch is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from calotype.cli.main import run
from calotype.core.errors import CorruptFileError
from calotype.pipeline.bundle import save_bundle
from calotype.text import begin_loading, encoders, load_text_encoder
from tests.pipeline.exported import make_model

NEEDLESS = [
    *("calotype.evaluation", "calotype.inspection", "calotype.images.dataset", "calotype.images.source"),
    *("calotype.pipeline.training", "calotype.pipeline.stages", "calotype.pipeline.conditions"),
    *("calotype.training.loop", "calotype.latents.health", "calotype.text.huggingface"),
    *("diffusers", "efficientnet_lite_pytorch", "huggingface_hub", "onnx", "pyarrow", "rich", "scipy", "sympy"),
    *("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "transformers"),
]
AT_THE_FIRST = """
import json, sys
from calotype.cli import main
from calotype.text import encoders
begin, seen = encoders.begin_loading, []

def watched(name):
    seen.append([name, "torch" in sys.modules])
    begin(name)
    if name:
        encoders._begun[name].result()
        seen.append(["ready", "torch" in sys.modules])

import calotype.text
calotype.text.begin_loading = watched
status = main.run(sys.argv[1:])
print(json.dumps([status, seen, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes words."""
    folder = tmp_path_factory.mktemp("words") / "model"
    save_bundle(make_model(words=True), folder)
    return folder


def test_a_picture_loads_nothing_it_does_not_need_and_its_words_no_torch(
    drawer: Path, here: Path, python_alone
) -> None:
    done = python_alone("-c", AT_THE_FIRST, "sample", str(drawer), "a red heart", "--steps", "2")
    picture, told = done.stdout.splitlines()
    status, seen, loaded = json.loads(told)
    assert status == 0
    assert (here / picture).is_file()
    assert seen == [["minilm", False], ["ready", False]]
    assert [name for name in NEEDLESS if name in loaded] == []


def test_the_same_picture_whether_its_words_were_read_ahead_or_not(drawer: Path, here: Path, monkeypatch) -> None:
    words = ["sample", str(drawer), "a red heart", "a blue one", "--steps", "2", "--out"]
    assert run([*words, "ahead"]) == 0
    monkeypatch.setattr("calotype.text.begin_loading", lambda name: None)
    assert run([*words, "after"]) == 0
    ahead, after = (sorted((here / folder).iterdir()) for folder in ("ahead", "after"))
    assert [path.name for path in ahead] == [path.name for path in after]
    assert len(ahead) == 3
    assert [path.read_bytes() for path in ahead] == [path.read_bytes() for path in after]


def test_an_encoder_begun_is_the_one_that_is_loaded_next_and_reads_alike() -> None:
    captions = ["a red heart", "", "a house beside a very long river, seen from above"]
    begin_loading("minilm")
    begun = encoders._begun["minilm"]
    encoder = load_text_encoder("minilm")
    assert encoder is begun.result()
    assert encoders._begun == {}
    other = load_text_encoder("minilm")
    assert other is not encoder
    for ours, theirs in zip(vars(encoder.encode(captions)).values(), vars(other.encode(captions)).values()):
        assert torch.equal(ours, theirs)


def test_what_goes_wrong_in_the_background_is_told_to_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.text.minilm.MODEL_SHA256", "0")
    begin_loading("minilm")
    with pytest.raises(CorruptFileError, match="is not the text encoder it should be"):
        load_text_encoder("minilm")
    assert encoders._begun == {}


def test_an_encoder_of_the_users_is_not_begun() -> None:
    begin_loading("openai/clip-vit-base-patch32")
    begin_loading("")
    assert encoders._begun == {}


@pytest.mark.parametrize("words", [["a cat"], []])
def test_a_misspelt_model_is_told_before_torch_is_loaded(words: list[str], here: Path, python_alone) -> None:
    code = "import sys; from calotype.cli.main import run; print(run(sys.argv[1:]), 'torch' in sys.modules)"
    done = python_alone("-c", code, "sample", "runs/none", *words)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("error: no model 'runs/none'")
