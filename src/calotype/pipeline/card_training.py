"""The card's training facts: on what it was trained, for how long, and how to get this model again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calotype.pipeline.pipeline import Pipeline


def training_lines(model: Pipeline) -> list[str]:
    """What to repeat to get this model again, to the bit on a like machine."""
    facts, recipe = model.facts, model.recipe
    if "imported_from" in facts:
        return ["It was trained elsewhere: how, on what and under which licence, its makers must say."]
    trained = facts.get("trained", {})
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    return [
        f"- recipe {recipe.name}, seed {recipe.seed}; all of its settings are in model.json",
        _first_stage(model, trained),
        f"- denoiser: {counted(facts.get('denoiser_parameters'))} parameters, "
        f"{counted(facts.get('denoiser_steps'))} steps{_cost(trained, 'denoiser')}",
        *([f"- machine: {trained['machine']}"] if "machine" in trained else []),
        f"- versions: {versions or 'unknown'}",
        _again(model, trained),
        *_precision(facts.get("half")),
        "- a picture depends on its seed and settings alone, not on the others drawn with it",
    ]


def _first_stage(model: Pipeline, trained: dict[str, Any]) -> str:
    facts, (c, h, w) = model.facts, model.codec.latent_shape
    steps, origin = facts.get("vae_steps"), facts.get("vae_from")
    how = f"{counted(steps)} steps{_cost(trained, 'vae')}"
    if origin is not None:
        taken = f"{origin} (sha256 {str(facts.get('vae_from_sha256', 'unknown'))[:12]})"
        how = f"that of {taken}, {f'and {how} more' if steps else 'as it is'}"
    return f"- VAE: {counted(facts.get('vae_parameters'))} parameters, {how}; latents {c} x {h} x {w}"


def _cost(trained: dict[str, Any], stage: str) -> str:
    """Pictures seen and time, as far as they are known; nothing for a stage that did not train."""
    seen, seconds = trained.get(f"{stage}_samples"), trained.get(f"{stage}_seconds")
    told = [f"{counted(seen)} pictures seen"] * bool(seen) + [duration(seconds or 0.0)] * bool(seconds)
    return f" ({', '.join(told)})" if told else ""


def _again(model: Pipeline, trained: dict[str, Any]) -> str:
    facts, recipe = model.facts, model.recipe
    if script := trained.get("script"):
        return f"- again, from nothing: `{script}` in calotype's repository"
    steps, vae_steps, origin = (facts.get(name) for name in ("denoiser_steps", "vae_steps", "vae_from"))
    again = f"--recipe {recipe.name} --size {recipe.size} --seed {recipe.seed}"
    again += "" if steps is None else f" --steps {steps}"
    again += "" if origin is None else f" --set vae.from={origin}"
    again += f" --set vae.steps={vae_steps}" if vae_steps else ""
    return f"- again, with the same data and settings: `calotype train DATA {again}`"


def _precision(half: dict[str, Any] | None) -> list[str]:
    """What float16 weights cost, where they were compared with those that were trained and scored."""
    if not half:
        return []
    return [
        f"- weights: float16 here, float32 in training; {counted(half['pictures'])} pictures of both differ by "
        f"{half['mean']:.2g} of 255 levels on average, at most {half['largest']}"
    ]


def duration(seconds: float) -> str:
    """Seconds as hours, or minutes where they are few."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"


def counted(number: Any) -> str:
    """1234 -> 1,234; what is no whole number is unknown."""
    return f"{number:,}" if isinstance(number, int) else "?"
