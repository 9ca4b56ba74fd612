"""ONNX Runtime draws torch's pictures, by a script that knows neither torch nor calotype."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.errors import UserError
from calotype.core.random import seeded_noise
from calotype.network.unet import UNetConfig
from calotype.pipeline import Pipeline
from calotype.pipeline.export import export, graphs, onnx, runner
from calotype.pipeline.export.onnx_text import write_text_encoder
from calotype.sampling import SAMPLERS
from calotype.text import load_text_encoder
from tests.pipeline.exported import CLASSES, make_model
from tests.text.encoders import save

KINDS: dict[str, dict[str, Any]] = {
    "unconditional": {
        "network": UNetConfig(channels=(16, 32), emb_channels=32),
        "process": {"schedule": "rectified-flow"},
        "loss": {"parameterization": "flow"},
        "sampling": {"sampler": "heun", "num_steps": 5, "shift": 2.0},
    },
    "class": {
        "classes": CLASSES,
        "loss": {"parameterization": "v"},
        "sampling": {"sampler": "ddpm", "num_steps": 8, "guidance_interval": [200, 900], "threshold": "static"},
    },
    "words": {
        "words": True,
        "process": {"schedule": "angle"},
        "loss": {"parameterization": "x0"},
        "sampling": {"sampler": "alpha", "num_steps": 6, "threshold": "dynamic", "guidance_rescale": 0.6},
    },
    "mixed": {
        "words": True,
        "classes": CLASSES,
        "network": UNetConfig(channels=(16,), attention=(True,), emb_channels=32, text_tokens=True),
        "process": {"schedule": "variance-exploding"},
        "loss": {"parameterization": "edm"},
        "sampling": {"sampler": "dpm++2m-sde", "num_steps": 7},
    },
}
ASKED: dict[str, list[tuple[list[str], list[str], dict[str, Any]]]] = {
    "unconditional": [
        ([], [], {"num_images": runner.BATCH + 1, "seed": 2**32 - 2}),
        ([], [], {"sampler": "euler", "num_steps": 4}),
    ],
    "class": [
        ([], ["dot", "disc"], {"num_images": 2, "seed": 5}),
        ([], ["dot"], {"guidance_scale": 1.0}),
        ([], [], {}),
    ],
    "words": [
        (["a red disc", "two blue stripes on a very long day"], [], {"seed": 3}),
        (["a red disc"], [], {"negative": "blue", "seed": 3}),
    ],
    "mixed": [
        (["a red disc", "a cat and many other animals"], [], {"seed": 1}),
        ([], ["dot"], {"seed": 1}),
        (["a red disc"], ["big stripe", "dot"], {"seed": 1, "negative": "ugly"}),
        ([], [], {"seed": 1}),
    ],
}
ALONE = """
import json, sys
from pathlib import Path
sys.modules["torch"] = sys.modules["calotype"] = None  # importing either is an ImportError
sys.path.insert(0, sys.argv[1])
import numpy as np
import sample
model = sample.Model(Path(sys.argv[1]))
for number, (prompts, labels, wishes) in enumerate(json.loads(sys.argv[2])):
    np.save(f"{sys.argv[3]}/{number}.npy", model.sample(prompts, labels, **wishes))
"""


def pixels(model: Pipeline, prompts: list[str], labels: list[str], **wishes: Any) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in model.sample(prompts, labels=labels, **wishes)])


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean difference in 1/255."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(float) - theirs).mean())


@pytest.mark.timeout(600)  # exporting is slow where the machine is busy
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_script_alone_draws_the_same_pictures(kind: str, tmp_path: Path) -> None:
    model, folder = make_model(**KINDS[kind]), tmp_path / "out"
    facts = export(model, "onnx", folder)
    assert max(facts["parity"]["denoiser"], facts["parity"]["decoder"]) < 1e-4
    assert facts["parity"]["picture_mean_of_255"] < 0.05
    assert {"denoiser.onnx", "decoder.onnx", "model.json", "sample.py", "README.md"} <= facts["files"].keys()
    asked = [*ASKED[kind], *(([], [], {"sampler": name, "num_steps": 5, "seed": 9}) for name in SAMPLERS)]
    command = [sys.executable, "-I", "-c", ALONE, str(folder), json.dumps(asked), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    drawn = []
    for number, (prompts, labels, wishes) in enumerate(asked):
        ours, theirs = pixels(model, prompts, labels, **wishes), np.load(tmp_path / f"{number}.npy")
        assert ours.std() > 5  # a picture, and not one flat or clipped colour that agrees with anything
        assert apart(ours, theirs) < 0.05, (kind, number)
        drawn.append(theirs[0])
    others = [apart(drawn[0], picture) for picture in drawn[1 : len(ASKED[kind])]]
    assert min(others) > 0.5  # what is asked for is seen: ten times what the two sides may differ by
    if kind == "class":
        check_command(model, folder, tmp_path)


def check_command(model: Pipeline, folder: Path, here: Path) -> None:
    """As a command it writes pictures, and refuses in one line."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(folder / "sample.py"), *words]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60, check=False)

    done = run("--label", "dot", "-n", "2", "--seed", "3", "--out", "drawn")
    assert done.stdout.split() == ["drawn/dot-3.png", "drawn/dot-4.png"], done.stderr
    theirs = np.stack([np.asarray(Image.open(here / path)) for path in done.stdout.split()])
    assert apart(pixels(model, [], ["dot"], num_images=2, seed=3), theirs) < 0.05
    for words, said in (
        (["--label", "spot"], "unknown class 'spot': this model knows disc, big stripe, dot"),
        (["a cat"], "this model takes no words"),
        (["-n", "0"], "0 pictures were asked for"),
        (["--label", "dot", "--steps", "6"], "6 steps were not exported: choose from 4, 5, 8, "),
    ):
        refused = run(*words)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 3, 1), (3, 5)])
def test_the_noise_is_that_of_the_library(shape: tuple[int, ...]) -> None:
    seeds = np.array([0, 1, 7, 2**31 + 5, 2**32 - 1, 2**32 + 3])
    for step in (0, 1, 250):
        ours = seeded_noise(torch.from_numpy(seeds), step, shape).numpy()
        theirs = runner.normal(seeds, step, shape)
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours, rtol=3e-7, atol=1e-9)


def test_the_script_imports_nothing_else() -> None:
    tree = ast.parse(Path(runner.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == {"numpy", "onnxruntime", "tokenizers", "PIL"}


@pytest.mark.parametrize("kind", ["clip-projection", "bert"])
def test_a_text_encoder_of_hugging_face_reads_the_same(kind: str, tmp_path: Path) -> None:
    encoder = load_text_encoder(str(save(tmp_path / kind, kind)))
    captions = ["a red heart", "", "dog", "a big blue cat " * 20]
    words = runner.Words(tmp_path, write_text_encoder(encoder, tmp_path))
    read = words.encode(captions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = encoder.encode(captions)
    for name, ours in (("pooled", text.pooled), ("tokens", text.tokens), ("mask", text.mask)):
        np.testing.assert_allclose(read[name], ours.numpy(), atol=1e-5)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = make_model()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        export(model, "onx", tmp_path / "new")
    with pytest.raises(UserError, match="full is there and is not empty"):
        export(model, "onnx", tmp_path / "full")
    with monkeypatch.context() as patched:
        patched.setattr(graphs, "find_spec", lambda name: None if name == "onnxscript" else name)
        with pytest.raises(UserError, match=r"'onnxscript'.*calotype\[export\]"):
            export(model, "onnx", tmp_path / "new")
    monkeypatch.setattr(onnx, "write_graph", lambda *_: None)
    monkeypatch.setattr(onnx, "difference", lambda *_: 0.0)
    monkeypatch.setattr(
        onnx, "_picture_difference", lambda *_: {"picture_mean_of_255": 1.2, "picture_max_of_255": 40.0}
    )
    with pytest.raises(UserError, match=r"1\.20/255 from torch's"):
        export(model, "onnx", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
