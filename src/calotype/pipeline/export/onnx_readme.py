"""The README of an export to ONNX: how to draw with it, what is in it, whose data it was."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

from calotype.pipeline.card import data_lines, parts_from_elsewhere

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


def onnx_readme(model: Pipeline, parity: dict[str, Any]) -> str:
    """Markdown; `parity` is what was measured."""
    prompts = (model.examples or ["your words"])[:1] if model.captioned else []
    labels = model.classes[:1]
    words = [*map(quote, prompts), *(f"--label {quote(label)}" for label in labels)]
    needed = ["numpy", "onnxruntime", "pillow", *["tokenizers"] * model.captioned]
    text = "- `text_encoder.onnx`, `tokenizer.json`: captions to vectors" if model.captioned else None
    elsewhere = [line.replace(", not in this folder", "") for line in parts_from_elsewhere(model)]
    lines = [
        f"# {model.facts.get('name', 'a calotype model')}, for ONNX Runtime",
        "",
        f"A latent diffusion model for pictures of {model.size} x {model.size}, exported by calotype.",
        "",
        f"    pip install {' '.join(needed)}",
        f"    python sample.py {' '.join([*words, '-n 4 --seed 0 --out pictures'])}",
        "",
        "or, from this folder, in Python",
        "",
        "    from pathlib import Path",
        "    from sample import Model",
        f'    pixels = Model(Path(".")).sample({prompts!r}, {labels!r}, num_images=4)  # (4, height, width, 3), 0..255',
        "",
        "`python sample.py --help` lists samplers and settings. The same seed draws the picture that calotype draws:",
        f"when this was written they differed by {parity['picture_mean_of_255']:.2g} of 255 on average, "
        f"{parity['picture_max_of_255']:.2g} at most.",
        "",
        "## Files",
        "",
        "- `denoiser.onnx`: noisy latents, noise level and condition to the network's answer; any batch size",
        "- `decoder.onnx`: latents to images in [-1, 1]",
        *([text] if text else []),
        "- `model.json`: the levels of every sampler, and the model's own settings",
        "- `sample.py`: all of the sampling, to read and to change",
        "",
        "## Data",
        "",
        *data_lines(model),
        *elsewhere,
        "",
    ]
    return "\n".join(lines)
