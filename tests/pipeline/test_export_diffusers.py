"""A whole model in stock diffusers: the folder loads, its README's script draws our picture."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.errors import UserError
from calotype.network import UNetConfig
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.export import export
from calotype.pipeline.export.diffusers import example_conditions, export_diffusers, why_not_diffusers
from calotype.pipeline.export.parity import parity
from calotype.pipeline.export.scheduler import matching_scheduler, why_not_scheduler
from calotype.process import RectifiedFlow, VariancePreserving
from calotype.recipes import SamplingSection
from tests.pipeline.exported import make_model
from tests.pipeline.stock_models import stock_model

# They hand numpy a torch tensor, whose __array__ numpy 2 finds dated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers")

CLASSES = ("disc", "stripe")
EPS: dict[str, Any] = {"process": {"schedule": "linear"}, "loss": {"parameterization": "eps"}}
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "class, dpm++2m": ({"classes": CLASSES, "sampling": {"num_steps": 10}}, "DPMSolverMultistepScheduler", "dpm++2m"),
    "pooled, ddim": (
        {"words": True, **EPS, "sampling": {"sampler": "ddim", "num_steps": 10}},
        "DDIMScheduler",
        "ddim",
    ),
    "tokens and class, no signal at T": (
        {
            "words": True,
            "tokens": True,
            "classes": CLASSES,
            "process": {"schedule": "linear", "zero_terminal_snr": True},
            "sampling": {"sampler": "euler", "num_steps": 10},
        },
        "DDIMScheduler",
        "ddim",
    ),
    "unconditional, flow": (
        {
            "process": {"schedule": "rectified-flow"},
            "loss": {"parameterization": "flow"},
            "sampling": {"sampler": "euler", "num_steps": 10, "shift": 2.0},
        },
        "FlowMatchEulerDiscreteScheduler",
        "euler",
    ),
    "class, exploding": (
        {
            "classes": CLASSES,
            "process": {"schedule": "variance-exploding"},
            "loss": {"parameterization": "edm"},
            "sampling": {"sampler": "euler", "num_steps": 10},
        },
        "EDMEulerScheduler",
        "euler",
    ),
}


@pytest.mark.parametrize(("sections", "scheduler", "sampler"), KINDS.values(), ids=KINDS)
def test_the_script_of_the_readme_draws_our_picture(
    sections: dict[str, Any], scheduler: str, sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stock_model(**sections)
    facts = export(model, "diffusers", tmp_path / "out")
    assert facts["classes"]["scheduler"] == scheduler
    script = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "script.py").write_text(script)
    monkeypatch.chdir(tmp_path / "out")
    runpy.run_path(str(tmp_path / "script.py"))
    theirs = np.asarray(Image.open("picture.png"), dtype=float)

    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cond, _ = example_conditions(model)
    settings = SamplingSection(sampler=sampler, shift=model.recipe.sampling.shift)
    scale = model.recipe.sampling.guidance_scale
    diffuser = Diffuser(model.denoiser, scale, facts["num_steps"], settings=settings, null_cond=cond[:1].dropped())
    with torch.no_grad():
        ours = model.decode(diffuser.reverse_diffusion(x_T, cond[:1]))
        bare = model.decode(diffuser.reverse_diffusion(x_T, cond[:1].dropped()))
    pixels = (ours[0] * 127.5 + 127.5).permute(1, 2, 0).numpy()
    assert abs(pixels - theirs).mean() < 0.4  # of 255; rounding to whole numbers alone is 0.25
    assert pixels.std() > 5
    if not cond.null.all():
        assert float((ours - bare).abs().mean()) * 127.5 > 1
    assert facts["parity"]["picture_mean_of_255"] < 0.1


def test_every_part_loads_with_the_class_of_the_index(tmp_path: Path) -> None:
    """And a stochastic default is shipped as such, its table checked without noise."""
    model = stock_model(classes=CLASSES, **EPS, sampling={"sampler": "ddpm", "num_steps": 1000})
    facts = export_diffusers(model, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    for part, kind in (("unet", "UNet2DModel"), ("vae", "AutoencoderKL"), ("scheduler", "DDPMScheduler")):
        assert index[part] == ["diffusers", kind]
        loaded = getattr(diffusers, kind).from_pretrained(tmp_path / part)
        assert type(loaded).__name__ == facts["classes"][part]
    assert loaded.config.timestep_spacing == "trailing"
    assert not loaded.config.clip_sample
    assert facts["num_steps"] == 1000
    readme = (tmp_path / "README.md").read_text()
    assert "CC BY 4.0" in readme
    assert "A. Painter" in readme


def test_a_difference_is_noticed() -> None:
    """Parity is a check: one row of one table moved by .05 is refused."""
    from calotype.pipeline.export.autoencoder import to_autoencoder_kl
    from calotype.pipeline.export.unet import to_diffusers

    model = stock_model(classes=CLASSES)
    matching = matching_scheduler(model.process, "v", SamplingSection())
    unet, vae = to_diffusers(model.network), to_autoencoder_kl(model.codec)
    cond, _ = example_conditions(model)
    assert parity(model, unet, vae, matching, cond)["unet"] < 1e-5
    unet.class_embedding.weight[0] += 0.05
    with pytest.raises(UserError, match="does not give this model's pictures"):
        parity(model, unet, vae, matching, cond)


def test_a_table_they_have_no_name_for() -> None:
    """Its betas are written out, and the noise they make is ours."""
    process = VariancePreserving.cosine(offset=0.05)
    shipped = matching_scheduler(process, "v", SamplingSection()).shipped
    assert shipped.config.trained_betas is not None
    given = shipped.alphas_cumprod.double()
    torch.testing.assert_close(given, process.alpha_bar(torch.arange(1, 1001)), rtol=1e-4, atol=1e-9)
    assert matching_scheduler(VariancePreserving.cosine(), "v", SamplingSection()).shipped.config.trained_betas is None
    without_signal = matching_scheduler(VariancePreserving.linear(zero_terminal_snr=True), "v", SamplingSection())
    assert (type(without_signal.shipped).__name__, without_signal.num_steps) == ("DDIMScheduler", 50)


def test_what_diffusers_cannot_express(tmp_path: Path) -> None:
    model = make_model()
    why = why_not_diffusers(model)
    assert "--set network.family=diffusers --set vae.network.family=diffusers, or export --to onnx" in why
    assert "the skips of its U-Net join whole levels" in why
    assert "fast family" in why
    with pytest.raises(UserError, match="cannot be exported to diffusers"):
        export_diffusers(model, tmp_path)
    assert "angles" in why_not_scheduler(VariancePreserving.angle(), "x0")
    assert why_not_scheduler(RectifiedFlow(), "v")
    assert why_not_scheduler(VariancePreserving.linear(), "flow")
    assert why_not_scheduler(VariancePreserving.linear(), "eps") == ""


def test_the_default_family_of_a_config_is_expressible_for_every_kind_of_data() -> None:
    """`for_data` of family "diffusers" fills in all that export asks for."""
    from calotype.pipeline.export.unet import why_not_unet

    chosen = UNetConfig(family="diffusers", map_channels=8, qk_norm=True)
    for classes in (0, 3):
        for text in (0, 384):
            for tokens in (False, True):
                asked = chosen.model_copy(update={"text_tokens": tokens})
                shape = asked.for_data(in_channels=4, num_classes=classes, text_dim=text, token_dim=text, latent_size=8)
                assert why_not_unet(shape) == ""


def test_conditions_are_written_beside_their_words(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = stock_model(words=True, classes=CLASSES, tokens=True)
    export_diffusers(model, tmp_path)
    rows, words = load_file(tmp_path / "conditions.safetensors"), json.loads((tmp_path / "conditions.json").read_text())
    asked = [{"prompt": "a red disc", "label": "disc"}, {"prompt": "an owl", "label": "stripe"}, {}]
    assert words["rows"] == asked
    assert rows["class_labels"].shape == (3, 12 + 2 + 2)
    assert rows["class_labels"][-1].tolist() == [0] * 15 + [1]
    assert rows["encoder_attention_mask"][-1].tolist() == [True] + [False] * 10
    assert rows["encoder_hidden_states"][:, 0].abs().max() == 0
