"""The report's section on how the run learned: curves by stage, and the same prompts drawn again and again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from calotype.inspection.report import facts, gallery
from calotype.inspection.report.curves import Series, panel, series, smooth
from calotype.inspection.report.drawing import evenly
from calotype.inspection.report.page import Section, films, note, section

Records = Sequence[Mapping[str, Any]]

MOST_PREVIEWS = 12
SAMPLES = 64  # that training scores
_HOW_TO_READ = (
    "Steps run to the right; beside each name stands the last value. The denoiser's error is how far its guess lies "
    "from the clean latent; guessing the mean would give 1."
)
OPTIONAL = {  # terms that a run may have; a panel without values is left out
    "multiscale": ("Loss on smaller pictures", True),
    "perceptual": ("Perceptual loss", True),
    "adversarial": ("The discriminator's judgement against the decoder", False),
    "discriminator": ("The discriminator's own loss", False),
    "balance": ("Weight of the discriminator's gradient", True),
}


def learning_section(run: Path, records: Records, outlook: str) -> Section | None:
    """Whether more training helps, the film of previews, and the curves."""
    curves = _curves(records)
    film = previews_film(run)
    if not curves and not film:
        return None
    verdict = f'<p class="verdict">{escape(outlook)}</p>\n' if outlook else ""
    return section("How it learned", "", verdict, film, f"<p>{_HOW_TO_READ}</p>\n" if curves else "", curves)


def _curves(records: Records) -> str:
    stages = {"Stage 1: the autoencoder": _vae(records), "Stage 2: the denoiser": _denoiser(records)}
    stages["Pace"] = [
        panel(f"Pictures per second, {name}", [_line(records, "", stage, "rate", noisy=True)], from_zero=True)
        for stage, name in facts.STAGES.items()
    ] + [panel("Learning rate, autoencoder", [_line(records, "", "vae", "lr")], from_zero=True)]
    return "".join(
        f'<h3>{name}</h3>\n<div class="panels">\n{"".join(panels)}</div>\n'
        for name, panels in stages.items()
        if any(panels)
    )


def _line(records: Records, name: str, stage: str, key: str, *, held: bool = False, noisy: bool = False) -> Series:
    return Series(name, series(records, stage, key), "held" if held else "train", noisy)


def _vae(records: Records) -> list[str]:
    def trained(key: str) -> list[Series]:
        return [_line(records, "training", "vae", key, noisy=True)]

    return [
        panel("Reconstruction loss", trained("reconstruction"), log=True),
        panel("KL divergence", trained("kl"), log=True),
        *(panel(title, trained(key), log=log) for key, (title, log) in OPTIONAL.items()),
        panel("PSNR", [_line(records, "held out", "vae", "held_out_psnr", held=True)], unit="dB"),
    ]


def _denoiser(records: Records) -> list[str]:
    errors = [
        _line(records, "training", "denoiser", "train_error"),
        _line(records, "held out", "denoiser", "held_out_error", held=True),
    ]
    return [
        panel("Loss", [_line(records, "training", "denoiser", "loss", noisy=True)], log=True),
        panel("Loss by noise", loss_by_noise(records), log=True),
        panel("Error on fixed noise", errors, log=True),
        panel(f"Kernel distance of {SAMPLES} samples", [_kernel_distance(records)]),
        panel("Gradient norm", [_line(records, "", "denoiser", "gradient_norm", noisy=True)], log=True),
        panel("Learning rate", [_line(records, "", "denoiser", "lr")], from_zero=True),
    ]


def _kernel_distance(records: Records) -> Series:
    low, high = (series(records, "denoiser", f"kernel_distance_{end}") for end in ("low", "high"))
    return replace(_line(records, "", "denoiser", "kernel_distance"), low=low, high=high)


def loss_by_noise(records: Records) -> list[Series]:
    """A line for each bin of the noise angle, from slate (hardly any noise) to plum (hardly any signal).

    Bins have few samples: a last record of much fewer steps than the others is left out.
    """
    rows = {
        int(r["step"]): r["loss_by_noise"] for r in records if r.get("stage") == "denoiser" and "loss_by_noise" in r
    }
    steps = sorted(rows)
    if len(steps) > 2 and steps[-1] - steps[-2] < (steps[-2] - steps[-3]) / 2:
        steps.pop()
    bins = max((len(rows[step]) for step in steps), default=0)
    names = {0: "least noise", bins - 1: "most noise"}
    return [
        Series(
            names.get(k, ""),
            smooth([(float(step), float(rows[step][k])) for step in steps if rows[step][k] is not None]),
            tint=k / max(bins - 1, 1),
        )
        for k in range(bins)
    ]


def previews_film(run: Path) -> str:
    """The same words and seeds at every look that was taken while training; empty before two of them."""
    sheets = preview_sheets(run)
    chosen = [sheets[i] for i in evenly(range(len(sheets)), MOST_PREVIEWS)]
    opened = [(step, sheet) for step, path in chosen if (sheet := gallery.open_sheet(path)) is not None]
    alike = [(step, sheet) for step, sheet in opened if sheet.size == opened[-1][1].size]
    if len(alike) < 2:
        return ""
    frames, steps = [sheet for _, sheet in alike], ", ".join(f"{step:,}" for step, _ in alike)
    alt = f"The same samples while the denoiser was trained, after {steps} steps"
    made = films([gallery.sprite(frames, alt)], wide=True, seconds=0.8)
    return f"<h3>The same words and seeds, all along</h3>\n{made}{note(f'After {steps} steps of the denoiser.')}"


def preview_sheets(run: Path, stage: str = "denoiser") -> list[tuple[int, Path]]:
    """(step, sheet) of the previews of averaged weights, in order."""
    found = [
        (int(match[1]), path)
        for path in (run / "samples").glob(f"{stage}-*.png")
        if (match := re.fullmatch(rf"{stage}-(\d+)\.png", path.name))
    ]
    return sorted(found)
