"""A model as a folder that stock diffusers classes load part by part, checked against ours before it is handed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from calotype.core.errors import UserError
from calotype.core.files import write_json, write_text
from calotype.core.tensors import save_tensors
from calotype.network.conditioning import Condition
from calotype.pipeline.export.autoencoder import MEND as VAE_MEND
from calotype.pipeline.export.autoencoder import to_autoencoder_kl, why_not_autoencoder
from calotype.pipeline.export.parity import parity
from calotype.pipeline.export.scheduler import MEND as SCHEDULER_MEND
from calotype.pipeline.export.scheduler import matching_scheduler, why_not_scheduler
from calotype.pipeline.export.stock_readme import stock_readme
from calotype.pipeline.export.unet import MEND as UNET_MEND
from calotype.pipeline.export.unet import diffusers_arguments, to_diffusers, why_not_unet

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline

MOST_EXAMPLES = 4


def why_not_diffusers(model: Pipeline) -> str:
    """What of this model no stock class computes, and the mend, in words; "" when it can be exported."""
    unet, vae = why_not_unet(model.network.config), why_not_autoencoder(model.codec.vae.config)
    scheduler = why_not_scheduler(model.process, model.denoiser.parameterization)
    found = [(why, mend) for why, mend in ((unet, UNET_MEND), (vae, VAE_MEND), (scheduler, SCHEDULER_MEND)) if why]
    if not found:
        return ""
    return (
        f"{'; '.join(why for why, _ in found)}: train with {' '.join(mend for _, mend in found)}, or export --to onnx"
    )


def export_diffusers(model: Pipeline, folder: Path) -> dict[str, Any]:
    """Write unet/, vae/, scheduler/, model_index.json, and a README with a script; return what was measured.

    The parts are read back by their own classes and compared with ours: U-Net and VAE to 1e-4 of the largest value, and
    a whole guided picture, drawn without fresh noise, to a mean of 1/255. UserError where `why_not_diffusers` has a
    reason or where they differ by more.
    """
    try:
        import diffusers
    except ImportError:
        raise UserError("this export needs package 'diffusers'", "pip install 'calotype[diffusers]'") from None
    if why := why_not_diffusers(model):
        raise UserError("this model cannot be exported to diffusers", why)
    matching = matching_scheduler(model.process, model.denoiser.parameterization, model.recipe.sampling)
    parts = {"unet": to_diffusers(model.network, model.codec.latent_shape[1]), "vae": to_autoencoder_kl(model.codec)}
    for name, part in {**parts, "scheduler": matching.shipped}.items():
        part.save_pretrained(folder / name)
    classes = {name: type(part).__name__ for name, part in {**parts, "scheduler": matching.shipped}.items()}
    index = {name: ["diffusers", kind] for name, kind in classes.items()}
    version = {"_class_name": "DiffusionPipeline", "_diffusers_version": diffusers.__version__}
    write_json(folder / "model_index.json", {**version, **index})
    cond, asked = example_conditions(model)
    write_conditions(model, cond, asked, folder)
    unet, vae = (_read_back(parts[name], folder / name, model.device) for name in ("unet", "vae"))
    facts = {"classes": classes, "num_steps": matching.num_steps, "parity": parity(model, unet, vae, matching, cond)}
    write_text(folder / "README.md", stock_readme(model, facts))
    return facts


def example_conditions(model: Pipeline) -> tuple[Condition, list[dict[str, str]]]:
    """A few of the things the model can be asked for, one null row where there are none; and their words."""
    words = (model.examples or ["a picture"])[:MOST_EXAMPLES] if model.captioned else []
    rows = len(words) or min(len(model.classes), MOST_EXAMPLES)
    if not rows:
        return Condition.nothing(1), []
    label = torch.arange(rows) % len(model.classes) if model.classes else None
    text = model.text_encoder.encode(words) if words else None
    asked: list[dict[str, str]] = [{} for _ in range(rows)]
    for i, row in enumerate(asked):
        row |= {"prompt": words[i]} if words else {}
        row |= {"label": model.classes[int(label[i])]} if label is not None else {}
    return Condition(torch.zeros(rows, dtype=torch.bool), label, text), asked


def write_conditions(model: Pipeline, cond: Condition, asked: list[dict[str, str]], folder: Path) -> None:
    """What the U-Net is given for the examples and, last, for nothing; beside it what each row asks for."""
    config = model.network.config
    if not (config.text_dim or config.num_classes):
        return
    given = diffusers_arguments(model.network, Condition.cat([cond, cond[:1].dropped()]))
    tensors = {name: rows for name, rows in given.items() if rows is not None}
    save_tensors(folder / "conditions.safetensors", tensors)
    if config.text_dim:
        reach = {name: getattr(model.network.condition, f"text_{name}") for name in ("mean", "whitening", "limit")}
        save_tensors(folder / "reach.safetensors", reach)
    encoder = model.facts.get("text_encoder")
    write_json(folder / "conditions.json", {"rows": [*asked, {}], "classes": model.classes, "text_encoder": encoder})


def _read_back(part: nn.Module, folder: Path, device: torch.device) -> Any:
    """What stock diffusers makes of the files."""
    kind: Any = type(part)
    return kind.from_pretrained(folder, low_cpu_mem_usage=False, use_safetensors=True).to(device).eval()
