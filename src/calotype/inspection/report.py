"""`report.html`: one self-contained page on what a run learned, pictures first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.core import files
from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.inspection import facts, gallery, health
from calotype.inspection.curves import Series, panel, series
from calotype.inspection.page import code, page, pairs, section, sheet, strip, table

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet
    from calotype.inspection.gallery import Model

Records = Sequence[Mapping[str, Any]]

SHOWN = 32
HELD_OUT_SHOWN = 16
MOST_CLASSES = 16
FIRST_SEED, HELD_OUT_SEED = 0, 1000
_HOW_TO_READ = (
    "Steps run to the right; beside each name stands the last value. The denoiser's error is how far its guess lies "
    "from the clean latent; guessing the mean would give 1."
)


def write_report(run: Path, reporter: Reporter | None = None, *, model: Model | None = None) -> Path:
    """Sample from a finished run and write `run/report.html`; returns its path.

    `model` spares loading one that is loaded already. Raises UserError where the run holds no prepared pictures.
    """
    from calotype.images.dataset import load_prepared

    reporter = reporter or Silent()
    pictures = load_prepared(run / "data")
    if pictures is None:
        raise UserError(f"{run} holds no prepared pictures", "a report is made of a run folder; train one first")
    reporter.stage("report", "samples, strips and curves")
    path = run / "report.html"
    files.write_text(path, build_report(run, model or _load(run), pictures, reporter))
    return path


def _load(run: Path) -> Model:
    from calotype.pipeline import load

    model: Model = load(run)
    return model


def build_report(run: Path, model: Model, pictures: PictureSet, reporter: Reporter) -> str:
    """The page as text."""
    records = list(files.read_lines(run / "metrics.jsonl"))
    makers: list[Callable[[], str]] = [
        lambda: _made(model, pictures),
        lambda: _held_out(model, pictures) if model.captioned else "",
        lambda: _reconstructions(model, pictures),
        lambda: health.health_section(run),
        lambda: _strips(model, pictures),
        lambda: _curves(records),
        lambda: _facts(run, model, pictures, records),
        lambda: _going_on(run, model, pictures, records),
    ]
    sections = []
    for done, make in enumerate(makers):
        reporter.update(done, len(makers), unit="sections/s")
        sections.append(make())
    reporter.update(len(makers), len(makers), unit="sections/s")
    foot = f"Made by calotype from the run <em>{escape(facts.run_name(run))}</em>. {escape(_credit(pictures))}"
    return page(Path(facts.run_name(run)).name, _lede(pictures, records), sections, foot)


def _credit(pictures: PictureSet) -> str:
    """Whose the pictures are; the licence is not said twice."""
    told = "" if pictures.licence in pictures.attribution else f"Licence: {pictures.licence}."
    return " ".join(part for part in (pictures.attribution and f"{pictures.attribution.rstrip('.')}.", told) if part)


def _lede(pictures: PictureSet, records: Records) -> str:
    trained = len(pictures.names) - int(pictures.held_out.sum())
    spent = facts.spent(records)
    clock = f" in {spent:.{0 if spent >= 10 else 1}f} minutes" if spent >= 0.1 else ""
    return f"A latent diffusion model, trained on {trained:,} pictures ({escape(pictures.source)}){clock}."


def _settings(first: int, count: int) -> str:
    return f"{gallery.NUM_STEPS} steps, seeds {first} to {first + count - 1}, none chosen by hand."


def _made(model: Model, pictures: PictureSet) -> str:
    """The model's pictures beside the real ones: by prompt, by class, or plain."""
    if model.captioned:
        ids = _shown(pictures)
        words = "Left on each mount: what the model made of the words. Right: a picture that taught it those words. "
        plates = gallery.prompted_pairs(model, pictures, ids, FIRST_SEED)
        return section("Made from words", words + _settings(FIRST_SEED, len(ids)), pairs(plates))
    if model.classes:
        return _made_by_class(model, pictures)
    made = gallery.made_sheet(model, SHOWN, FIRST_SEED)
    real = gallery.real_sheet(pictures, gallery.spread(pictures, _ids(pictures.train_ids), SHOWN))
    words = f"Pictures that did not exist before. {_settings(FIRST_SEED, SHOWN)}"
    return section("Made from noise", words, sheet(made), "<h3>What it learned from</h3>\n", sheet(real))


def _made_by_class(model: Model, pictures: PictureSet) -> str:
    shown = model.classes[:MOST_CLASSES]
    each = max(4, min(8, SHOWN // len(shown)))
    blocks = []
    for k, label in enumerate(shown):
        mine = [i for i in _ids(pictures.train_ids) if pictures.labels[i] == label]
        made = gallery.made_sheet(model, each, FIRST_SEED + k * each, label)
        real = gallery.real_sheet(pictures, gallery.spread(pictures, mine, each))
        blocks += [f"<h3>{escape(label)}</h3>\n", sheet(made), sheet(real)]
    rest = len(model.classes) - len(shown)
    more = f" {rest} more classes are not shown." if rest else ""
    words = (
        f"For every class two sheets: made by the model, then real. {_settings(FIRST_SEED, each * len(shown))}{more}"
    )
    return section("Made by class", words, *blocks)


def _held_out(model: Model, pictures: PictureSet) -> str:
    """The same for captions of held-out pictures."""
    ids, unseen = gallery.held_out_ids(pictures, HELD_OUT_SHOWN)
    if not ids:
        return ""
    plates = gallery.prompted_pairs(model, pictures, ids, HELD_OUT_SEED)
    if unseen:
        words = "These words and pictures were kept from it. Right: the picture it would have had to guess. "
        return section("Words it never saw", words + _settings(HELD_OUT_SEED, len(ids)), pairs(plates))
    words = "Right: a picture kept from it; its words, though, occur among the training pictures too. "
    return section("Beside pictures it never saw", words + _settings(HELD_OUT_SEED, len(ids)), pairs(plates))


def _reconstructions(model: Model, pictures: PictureSet) -> str:
    held = _ids(pictures.held_out_ids)
    ids = gallery.spread(pictures, held or _ids(pictures.train_ids), HELD_OUT_SHOWN)
    kind = "held-out pictures" if held else "training pictures (none are held out)"
    shape = " × ".join(str(n) for n in gallery.latent_shape(model, pictures))
    words = (
        f"The autoencoder alone, on {kind}. Left: the original. Right: what is left of it after a latent of {shape} "
        "numbers. The denoiser cannot draw finer than this."
    )
    return section("What the latent keeps", words, pairs(gallery.reconstruction_pairs(model, pictures, ids)))


def _strips(model: Model, pictures: PictureSet) -> str:
    """The way into noise, and the way back."""
    ids = _shown(pictures) if model.captioned else _ids(pictures.train_ids)
    forward = gallery.forward_strip(model, pictures.pixels[ids[0]], FIRST_SEED)
    prompts = [str(pictures.captions[i]) for i in ids[:3]] if model.captioned else None
    settings: dict[str, Any] = {"seed": FIRST_SEED}
    if not model.captioned:
        settings |= {"labels": model.classes[:3]} if model.classes else {"num_images": 3}
    rows = gallery.denoising_strips(model, prompts, settings)
    names = prompts or settings.get("labels") or ["one picture", "another", "a third"]
    held = strip(rows["x_t"], f"What the sampler holds, step by step: {names[0]}")
    believed = "".join(
        f"<h3>{escape(name)}</h3>\n{held if k == 0 else ''}"
        + strip(rows[f"x0_hat {k}"], f"What the model believes, step by step: {name}")
        for k, name in enumerate(names)
    )
    return section(
        "Into noise, and back",
        "Training drowns a picture's latent in noise; below each one, how much is signal and how much noise.",
        strip(forward, "A picture drowning in noise"),
        "<p>Sampling goes the other way. The first strip is what the sampler holds at each step; the one below it, "
        "and every other, is what the model then believes will come of it.</p>\n",
        believed,
    )


OPTIONAL = {  # terms that a run may have; a panel without values is left out
    "multiscale": ("Loss on smaller pictures", True),
    "perceptual": ("Perceptual loss", True),
    "adversarial": ("What the discriminator thinks of the decoder", False),
    "discriminator": ("The discriminator's own loss", False),
    "balance": ("Weight of the discriminator's gradient", True),
}


def _curves(records: Records) -> str:
    def line(name: str, stage: str, key: str, **style: Any) -> Series:
        return Series(name, series(records, stage, key), **style)

    vae = [
        panel("Reconstruction loss", [line("training", "vae", "reconstruction", noisy=True)], log=True),
        panel("KL divergence", [line("training", "vae", "kl", noisy=True)], log=True),
        *(panel(title, [line("training", "vae", key, noisy=True)], log=log) for key, (title, log) in OPTIONAL.items()),
        panel("PSNR", [line("held out", "vae", "held_out_psnr", kind="held")], unit="dB"),
    ]
    denoiser = [
        panel("Loss", [line("training", "denoiser", "loss", noisy=True)], log=True),
        panel(
            "Error on fixed noise",
            [
                line("training", "denoiser", "train_error"),
                line("held out", "denoiser", "held_out_error", kind="held"),
            ],
            log=True,
        ),
        panel("Learning rate", [line("", "denoiser", "lr")], from_zero=True),
    ]
    pace = [
        panel(f"Pictures per second, {name}", [line("", stage, "rate", noisy=True)], from_zero=True)
        for stage, name in facts.STAGES.items()
    ] + [panel("Learning rate, autoencoder", [line("", "vae", "lr")], from_zero=True)]
    stages = {"Stage 1: the autoencoder": vae, "Stage 2: the denoiser": denoiser, "Pace": pace}
    blocks = [
        f'<h3>{name}</h3>\n<div class="panels">\n{"".join(panels)}</div>\n'
        for name, panels in stages.items()
        if any(panels)
    ]
    return section("How it learned", _HOW_TO_READ, *blocks) if blocks else ""


def _facts(run: Path, model: Model, pictures: PictureSet, records: Records) -> str:
    tables = [
        ("Data", facts.data_rows(pictures)),
        *((f"Stage: {name}", facts.stage_rows(records, stage)) for stage, name in facts.STAGES.items()),
        ("Model", facts.model_rows(run, model, gallery.latent_shape(model, pictures))),
        ("Made with", facts.version_rows(model)),
    ]
    blocks = "".join(table(caption, rows) for caption, rows in tables if rows)
    refused = facts.refused_files(run)
    listed = "".join(f"<li>{escape(entry)}</li>\n" for entry in refused)
    summary = f"<summary>Files that could not be read ({pictures.refused:,})</summary>"
    details = f"<details>{summary}\n<ul>\n{listed}</ul></details>\n" if refused else ""
    return section("Facts", "", f'<div class="facts">\n{blocks}</div>\n', details)


def _going_on(run: Path, model: Model, pictures: PictureSet, records: Records) -> str:
    word = str(pictures.captions[_shown(pictures)[0]]) if model.captioned else (model.classes or [""])[0]
    blocks = [
        f"<h3>{escape(what)}</h3>\n{code(text)}"
        for what, text in facts.next_commands(run, model, pictures, word, facts.spent(records))
    ]
    return section("How to go on", "", f'<div class="ways">\n{"".join(blocks)}</div>\n')


def _shown(pictures: PictureSet) -> list[int]:
    """The pictures whose captions the page asks for: the demonstration's own prompts where the data has them."""
    from calotype.images.openmoji import SHOWCASE

    return gallery.showcase_ids(pictures, SHOWCASE, SHOWN)


def _ids(ids: Any) -> list[int]:
    return [int(i) for i in ids]
