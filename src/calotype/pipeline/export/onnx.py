"""`--to onnx`: the model as graphs for ONNX Runtime, with a script that samples them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.files import write_text
from calotype.core.types import TextEmbedding
from calotype.network.conditioning import Condition
from calotype.pipeline.export.graphs import OPSET, difference, require, write_graph
from calotype.pipeline.export.onnx_readme import onnx_readme
from calotype.pipeline.export.onnx_settings import runner_settings
from calotype.pipeline.export.onnx_text import write_text_encoder

if TYPE_CHECKING:
    from calotype.latents import Codec
    from calotype.network.unet import UNet
    from calotype.pipeline.pipeline import Pipeline

STEPS_COMPARED = 50
SAME_PICTURE = 1.0  # mean difference allowed, in 1/255


class DenoiserGraph(nn.Module):
    """The network with its condition as plain tensors: x (b, c, h, w), time (b,) and `condition_parts`."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The prediction (b, c, h, w)."""
        x, time = inputs["x"], inputs["time"]
        if "null" not in inputs:
            return self.network(x, time, Condition(time == time))
        text = None
        if "pooled" in inputs:
            pooled = inputs["pooled"]
            tokens = inputs.get("tokens", pooled[:, None, :0])
            text = TextEmbedding(pooled, tokens, inputs.get("mask", pooled[:, :0].bool()))
        return self.network(x, time, Condition(inputs["null"], inputs.get("label"), text, inputs.get("texted")))


class DecoderGraph(nn.Module):
    """Standardised latents x0 (b, c, h, w) to images (b, 3, H, W) in [-1, 1], the codec's statistics included."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.codec.vae.decode(inputs["x0"] * self.codec.std + self.codec.mean).clamp(-1, 1)


def condition_parts(network: UNet) -> list[str]:
    """What the denoiser is told of a picture besides x and time, one row a picture each."""
    config = network.config
    parts = ["label"] * bool(config.num_classes) + ["pooled", "texted"] * bool(config.text_dim)
    parts += ["tokens", "mask"] * (bool(config.text_dim) and config.text_tokens)
    return ["null", *parts] if parts else []


def export_onnx(model: Pipeline, folder: Path) -> dict[str, Any]:
    """Write denoiser.onnx, decoder.onnx, model.json and sample.py; for a model of words the text encoder too.

    Returns how far ONNX Runtime is from torch: the graphs' largest difference as a share of their reach, and a sampled
    picture's in 1/255. UserError without the extra `export`, and for a picture that is not the same (1/255 on average).
    """
    require("onnx", "onnxscript", "onnxruntime", *["tokenizers"] * model.captioned)
    denoiser = DenoiserGraph(copy.deepcopy(model.network).cpu()).eval()
    decoder = DecoderGraph(copy.deepcopy(model.codec).cpu()).eval()
    shape = model.codec.latent_shape
    write_graph(
        denoiser, folder / "denoiser.onnx", example(denoiser.network, shape, 2), ["prediction"], ("tokens", "mask")
    )
    write_graph(decoder, folder / "decoder.onnx", {"x0": torch.zeros(2, *shape)}, ["images"])
    text = write_text_encoder(model.text_encoder, folder) if model.captioned else None
    write_text(folder / "model.json", json.dumps(runner_settings(model, text), ensure_ascii=False, allow_nan=False))
    shutil.copyfile(Path(__file__).with_name("runner.py"), folder / "sample.py")
    cases = [example(denoiser.network, shape, rows) for rows in (1, 3)]
    parity = {
        "denoiser": difference(denoiser, folder / "denoiser.onnx", cases),
        "decoder": difference(decoder, folder / "decoder.onnx", [{"x0": case["x"]} for case in cases]),
        **_picture_difference(model, folder),
    }
    if not parity["picture_mean_of_255"] <= SAME_PICTURE:
        raise UserError(
            f"ONNX Runtime's picture is {parity['picture_mean_of_255']:.2f}/255 from torch's on average",
            "try another version of onnxruntime",
        )
    write_text(folder / "README.md", onnx_readme(model, parity))
    return {"opset": OPSET, "inputs": list(cases[0]), "parity": parity}


def example(network: UNet, shape: tuple[int, ...], rows: int) -> dict[str, Tensor]:
    """Inputs of every kind, to trace and to compare with: every second row asks for nothing."""
    config, made = network.config, torch.Generator().manual_seed(rows)
    even, tokens = torch.arange(rows) % 2 == 0, 2 + rows
    every = {
        "null": ~even,
        "label": torch.arange(rows) % max(config.num_classes, 1) - (torch.arange(rows) % 3 == 2).long(),
        "pooled": torch.randn(rows, max(config.text_dim, 1), generator=made),
        "texted": torch.arange(rows) % 3 != 1,
        "tokens": torch.randn(rows, tokens, max(config.token_dim or config.text_dim, 1), generator=made),
        "mask": torch.arange(tokens).expand(rows, tokens) <= torch.arange(rows)[:, None],
    }
    inputs = {"x": torch.randn(rows, *shape, generator=made), "time": torch.rand(rows, generator=made) * 999}
    return inputs | {name: every[name] for name in condition_parts(network)}


def _picture_difference(model: Pipeline, folder: Path) -> dict[str, Any]:
    """One picture drawn by the runner and by torch, from the same words and seed, by the model's own sampler."""
    from calotype.pipeline.export.runner import Model

    steps = min(model.recipe.sampling.num_steps, STEPS_COMPARED)
    prompts, labels = (model.examples or ["a picture"])[:1] if model.captioned else [], model.classes[:1]
    ours = model.sample_tensor(prompts, labels=labels, num_steps=steps)
    theirs = Model(folder).sample(prompts, labels, num_steps=steps)
    pixels = (ours.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    apart = np.abs(np.round(pixels).clip(0, 255) - theirs)
    asked = {"prompt": prompts[0] if prompts else None, "label": labels[0] if labels else None, "num_steps": steps}
    return {"picture_mean_of_255": float(apart.mean()), "picture_max_of_255": float(apart.max()), **asked}
