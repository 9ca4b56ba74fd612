"""The model card of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


def model_card(model: Pipeline) -> str:
    """Markdown: what the model is, its data and licence, how it was trained, how to sample it."""
    facts, recipe = model.facts, model.recipe
    data = facts.get("data", {})
    if model.captioned:
        ask = f'"{(model.examples or ["your words"])[0]}"'
    else:
        ask = f"--label {model.classes[0]}" if model.classes else "-n 16"
    c, h, w = model.codec.latent_shape
    measured = facts.get("measured", {})
    lines = [
        f"# {facts.get('name', 'a calotype model')}",
        "",
        f"A latent diffusion model for pictures of {model.size} x {model.size}, trained from scratch with calotype.",
        "",
        "![samples](samples.png)",
        "",
        "## Sample it",
        "",
        f"    calotype sample FOLDER {ask}",
        "",
        "## Data",
        "",
        f"- source: {data.get('source', 'unknown')}, {data.get('pictures', '?')} pictures, "
        f"{data.get('held_out', '?')} of them held out, {data.get('refused', 0)} unreadable",
        f"- licence: {data.get('licence') or 'not stated by the source: ask whoever made the pictures'}",
        f"- attribution: {data.get('attribution') or 'not stated'}",
        "",
        "## Training",
        "",
        f"- recipe {recipe.name}, seed {recipe.seed}; VAE {facts.get('vae_parameters', '?'):,} parameters to "
        f"{c} x {h} x {w}; denoiser {facts.get('denoiser_parameters', '?'):,} parameters",
        *([f"- VAE: {facts['vae_source']}, not trained here; its own licence holds"] if "vae_source" in facts else []),
        f"- {facts.get('vae_steps', '?'):,} and {facts.get('denoiser_steps', '?'):,} steps",
        *[f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in measured.items()],
        "",
        "## What it cannot do",
        "",
        "It has seen only the pictures above. Prompts far from their captions give something in their style, not what",
        "the words say; with few pictures, samples of training captions are largely memory of the training pictures.",
        "",
    ]
    return "\n".join(lines)
