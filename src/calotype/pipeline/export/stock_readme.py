"""The README of an export to diffusers: a script of stock classes, how conditions are made, whose data it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


def stock_readme(model: Pipeline, facts: dict[str, Any]) -> str:
    """Markdown. `facts` are the export's: classes, num_steps, parity."""
    data, parity = model.facts.get("data", {}), facts["parity"]
    vae = max(parity["encoder"], parity["decoder"])
    lines = [
        f"# {model.facts.get('name', 'a calotype model')}, for diffusers",
        "",
        f"A latent diffusion model for pictures of {model.size} x {model.size}, written by calotype. Every part loads",
        "with the stock class that `model_index.json` names; no stock pipeline joins just these. Run this here:",
        "",
        "```python",
        *_script(model, facts),
        "```",
        "",
        *_conditions(model),
        "Latents are standardised inside the VAE: there is no scaling factor to apply.",
        "",
        f"Measured when this was written: the U-Net is within {parity['unet']:.1g} and the VAE within {vae:.1g} of",
        "calotype's own, as a share of the largest value; pictures drawn without fresh noise are within",
        f"{parity['picture_mean_of_255']:.2g} of 255 on average and {parity['picture_max_of_255']:.2g} at most.",
        *_left_behind(model),
        "",
        "## Data",
        "",
        f"- source: {data.get('source', 'unknown')}",
        f"- licence: {data.get('licence') or 'not stated by the source: ask whoever made the pictures'}",
        f"- attribution: {data.get('attribution') or 'not stated'}",
        *([f"- VAE: {model.facts['vae_source']}; its own licence holds"] if "vae_source" in model.facts else []),
        "",
    ]
    return "\n".join(lines)


def _script(model: Pipeline, facts: dict[str, Any]) -> list[str]:
    config, kinds, steps = model.network.config, facts["classes"], facts["num_steps"]
    conditional, flow = bool(config.text_dim or config.num_classes), kinds["scheduler"].startswith("FlowMatch")
    shape, scale = ", ".join(str(n) for n in model.codec.latent_shape), model.recipe.sampling.guidance_scale
    nothing = '{"encoder_hidden_states": None} | ' if config.text_dim else ""
    levels = f"sigmas=[1 - i / {steps} for i in range({steps})]" if flow else str(steps)
    imported = sorted(["AutoencoderKL", kinds["scheduler"], kinds["unet"]])
    seen = "both" if flow else "scheduler.scale_model_input(both, t)"
    return [
        "import torch",
        f"from diffusers import {', '.join(imported)}",
        "from diffusers.image_processor import VaeImageProcessor",
        *(["from safetensors.torch import load_file"] if conditional else []),
        "",
        f'unet = {kinds["unet"]}.from_pretrained("unet")',
        'vae = AutoencoderKL.from_pretrained("vae")',
        f'scheduler = {kinds["scheduler"]}.from_pretrained("scheduler")',
        f"scheduler.set_timesteps({levels})",
        f"x = torch.randn(1, {shape}, generator=torch.Generator().manual_seed(0))"
        + ("" if flow else " * scheduler.init_noise_sigma"),
        *(
            [
                "# the first example of conditions.json, and the last row, which asks for nothing",
                f"cond = {nothing}"
                + '{name: rows[[0, -1]] for name, rows in load_file("conditions.safetensors").items()}',
            ]
            if conditional
            else []
        ),
        "with torch.no_grad():",
        "    for t in scheduler.timesteps:",
        *(
            [
                "        both = torch.cat([x, x])",
                f"        asked, nothing = unet({seen}, t, **cond).sample.chunk(2)",
                f"        x = scheduler.step(nothing + {scale:g} * (asked - nothing), t, x).prev_sample",
            ]
            if conditional
            else [
                f"        prediction = unet({seen.replace('both', 'x')}, t).sample",
                "        x = scheduler.step(prediction, t, x).prev_sample",
            ]
        ),
        "    picture = VaeImageProcessor().postprocess(vae.decode(x).sample)[0]",
        'picture.save("picture.png")',
    ]


def _conditions(model: Pipeline) -> list[str]:
    """How to ask for something else."""
    config = model.network.config
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(model.classes))
    if not config.text_dim:
        if not config.num_classes:
            return []
        return [f"`class_labels` are {classes}; {config.num_classes} asks for nothing.", ""]
    encoder = model.facts.get("text_encoder", {}).get("id", model.recipe.text_encoder)
    parts = [f"the {config.text_dim} numbers of the pooled text"]
    parts += [f"{config.num_classes} for the class, one of them 1 ({classes})"] if config.num_classes else []
    lines = [
        f"A row of `class_labels` is {', '.join(parts)}, 1 if there is a text, 1 if nothing is asked for;",
        f"what does not apply is 0. The text encoder is {encoder}: `pooled`, `tokens` and `mask` are those of",
        f"`calotype.text.load_text_encoder({model.recipe.text_encoder!r}).encode([...])`. Words unlike the",
        "captions of the training are brought within their reach first, with what `reach.safetensors` holds:",
        "`pooled = mean + offset * (limit / (offset @ whitening).norm(dim=1, keepdim=True)).clamp(max=1)`, where",
        "`offset = pooled - mean`.",
    ]
    if config.text_tokens:
        lines += [
            "`encoder_hidden_states` are one token of zeros, then the text's tokens; `encoder_attention_mask` is True",
            "for the first, then the text's mask (False throughout where there is no text).",
        ]
    return [*lines, ""]


def _left_behind(model: Pipeline) -> list[str]:
    """Settings of the recipe's sampling that a diffusers scheduler has no word for."""
    own, plain = model.recipe.sampling, type(model.recipe.sampling)()
    names = ("guidance_interval", "guidance_rescale", "threshold", "grid")
    changed = [f"{name}={getattr(own, name)}" for name in names if getattr(own, name) != getattr(plain, name)]
    return [f"Not carried over: the recipe's {', '.join(changed)}."] if changed else []
