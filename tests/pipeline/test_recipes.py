"""Both walkthroughs train and sample from end to end; a VAE from elsewhere may take the place of the first stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from calotype.core.errors import UserError
from calotype.core.files import read_lines
from calotype.pipeline import Run, load, train
from tests.latents.pretrained_making import make
from tests.pipeline.conftest import QUICK, paint

SMALL = [*QUICK, "network.channels=[8, 16]", "network.attention=[false, true]", "network.emb_channels=16"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of drawn pictures, captioned."""
    folder = paint(tmp_path_factory.mktemp("recipes") / "shapes")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    lines = [json.dumps({"file_name": str(f), "text": f"a {f.parent} in colour"}) for f in files]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_ddpm_64_asks_for_nothing(shapes: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, "sampling.num_steps=12"]  # of the 1,000 that tests/recipes asserts
    run = train(shapes, recipe="ddpm-64", out=tmp_path / "run", size=32, steps=3, overrides=overrides)
    model = load(run.folder, "cpu")
    assert not model.captioned
    assert not model.classes
    frames = list(model.stream(num_images=1))
    assert len(frames) == 12
    assert bool(torch.isfinite(frames[-1].x_t).all())


def test_text_128_is_asked_in_words(shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, recipe="text-128", out=tmp_path / "run", size=32, steps=3, overrides=SMALL)
    model = load(run.folder, "cpu")
    assert model.captioned
    assert model.network.conv_in.in_channels == 4 + 32 + 256
    picture, other = model.sample(["a disc in colour", "a stripe in colour"], seed=1)
    assert picture.size == (32, 32)
    assert picture.tobytes() != other.tobytes()
    assert picture.info["calotype"]["num_steps"] == 70
    assert picture.info["calotype"]["threshold"] == "dynamic"


def test_a_pretrained_vae_is_used_as_it_is_and_travels_in_the_bundle(shapes: Path, tmp_path: Path) -> None:
    vae = make(tmp_path / "vae")
    settings = {"size": 32, "overrides": [*SMALL, f"vae.pretrained={vae}"]}
    run = train(shapes, recipe="text-128", out=tmp_path / "run", steps=3, **settings)
    from calotype.latents import load_pretrained_vae

    expected = load_pretrained_vae(vae).state_dict()
    vae.rename(tmp_path / "gone")
    model = load(run.folder, "cpu")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.codec.vae.state_dict().items())
    assert model.codec.latent_shape == (3, 8, 8)
    assert model.sample(["a disc in colour"], num_steps=2)[0].size == (32, 32)
    stages = {record["stage"] for record in read_lines(run.metrics)}
    assert stages == {"vae", "denoiser"}
    # The run holds its weights, so that it goes on without the folder it came from.
    longer = train(shapes, recipe="text-128", out=run.folder, steps=5, **settings)
    assert longer.facts()["denoiser_steps"] == 5
    assert longer.facts()["vae_steps"] == 0
    assert longer.facts()["vae_source"] == "vae"
    assert "VAE: vae, not trained here" in (longer.model / "README.md").read_text()


def test_a_missing_pretrained_vae_is_refused_before_anything_is_written(shapes: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, f"vae.pretrained={tmp_path / 'nowhere'}"]
    with pytest.raises(UserError, match="nowhere"):
        train(shapes, recipe="text-128", out=tmp_path / "run", size=32, steps=3, overrides=overrides)
    assert not Run(tmp_path / "run").config.exists()
