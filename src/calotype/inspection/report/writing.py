"""`report.html`, written while a run trains and when it is done: which sections there are, and in which order."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.core import files
from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.inspection.report import commands, facts, gallery, latent, made, scores
from calotype.inspection.report.advice import doctor_section, examine, outlook_in_short
from calotype.inspection.report.health import health_section
from calotype.inspection.report.lab import lab_section
from calotype.inspection.report.learning import learning_section, preview_sheets
from calotype.inspection.report.page import Plate, Section, code, folded, listing, page, section, table
from calotype.inspection.scores import read_scores

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet
    from calotype.inspection.doctor import Diagnosis
    from calotype.inspection.report.drawing import Model

Records = Sequence[Mapping[str, Any]]
REPORT = "report.html"


def write_report(
    run: Path, reporter: Reporter | None = None, *, model: Model | None = None, diagnosed: bool = True
) -> Path:
    """Sample from a run and write `run/report.html`; returns its path.

    `model` spares loading one that is loaded already. Scores are those that `evaluate` left, if they are of this model.
    `diagnosed`: ask the doctor too. Raises UserError where the run holds no prepared pictures.
    """
    reporter = reporter or Silent()
    pictures = _pictures(run)
    model = model or _load(run)
    diagnosis = examine(run, str(model.device), reporter) if diagnosed else None
    reporter.stage("report", "samples, films and curves")
    path = run / REPORT
    files.write_text(path, build_report(run, model, pictures, diagnosis, reporter))
    return path


def write_progress_report(run: Path) -> Path:
    """Write `run/report.html` while the run trains: curves and the newest previews, nothing drawn, no model loaded.

    Raises UserError where the run holds no prepared pictures.
    """
    pictures, records = _pictures(run), list(files.read_lines(run / "metrics.jsonl"))
    outlook = outlook_in_short(run, records)
    sections = [
        _previews(run),
        learning_section(run, records, outlook),
        health_section(run),
        _facts(run, None, pictures, records),
        _settings(run, {}),
    ]
    path = run / REPORT
    files.write_text(path, _page(run, pictures, _progress(records, pictures), sections))
    return path


def build_report(run: Path, model: Model, pictures: PictureSet, diagnosis: Diagnosis | None, reporter: Reporter) -> str:
    """The page of a finished run as text."""
    records, record = list(files.read_lines(run / "metrics.jsonl")), read_scores(run)
    outlook = outlook_in_short(run, records)
    makers: list[Callable[[], list[Section | None]]] = [
        partial(_made, model, pictures, reporter),
        lambda: [scores.memory_section(record), scores.scores_section(record) or _unscored(run), lab_section(run)],
        lambda: [_latent(model, pictures), learning_section(run, records, outlook), health_section(run)],
        lambda: [doctor_section(diagnosis), _facts(run, model, pictures, records), _settings(run, model.facts)],
        lambda: [_going_on(run, model, pictures, records)],
    ]
    sections = [part for make in makers for part in make()]
    lede = [
        _lede(pictures, records),
        scores.memory_in_short(record),
        "" if outlook.startswith("Too early") else _opening(outlook, ":"),
    ]
    return _page(run, pictures, " ".join(escape(words) for words in lede if words), sections)


def _unscored(run: Path) -> Section:
    """How to get what the page lacks."""
    words = "How far these pictures are from real ones, and whether they are copies, was not measured. This does it:"
    return section("Not scored yet", words, code(shlex.join(["calotype", "evaluate", facts.run_name(run)])))


def _opening(text: str, end: str) -> str:
    """What comes before `end`, as a sentence; the whole of it stands in its section."""
    return f"{text.split(end, 1)[0].rstrip('.')}." if text else ""


def _pictures(run: Path) -> PictureSet:
    from calotype.images.dataset import load_prepared

    pictures = load_prepared(run / "data")
    if pictures is None:
        raise UserError(f"{run} holds no prepared pictures", "a report is made of a run folder; train one first")
    return pictures


def _load(run: Path) -> Model:
    from calotype.pipeline import load

    model: Model = load(run)
    return model


def _page(run: Path, pictures: PictureSet, lede: str, sections: Sequence[Section | None]) -> str:
    foot = f"Made by calotype from the run <em>{escape(facts.run_name(run))}</em>. {escape(_credit(pictures))}"
    return page(Path(facts.run_name(run)).name, lede, [part for part in sections if part is not None], foot)


def _credit(pictures: PictureSet) -> str:
    """Whose the pictures are; the licence is not said twice."""
    told = "" if pictures.licence in pictures.attribution else f"Licence: {pictures.licence}."
    return " ".join(part for part in (pictures.attribution and f"{pictures.attribution.rstrip('.')}.", told) if part)


def _lede(pictures: PictureSet, records: Records) -> str:
    spent = facts.spent(records)
    clock = f" in {spent:.{0 if spent >= 10 else 1}f} minutes" if spent >= 0.1 else ""
    return f"A latent diffusion model, trained on {len(pictures.train_ids):,} pictures ({pictures.source}){clock}."


def _progress(records: Records, pictures: PictureSet) -> str:
    """Where the training is, as HTML."""
    words = f"A latent diffusion model in training, on {len(pictures.train_ids):,} pictures ({pictures.source})."
    for stage, name in facts.STAGES.items():
        steps = [int(r["step"]) for r in records if r.get("stage") == stage and "step" in r]
        words += f" The {name} is at step {max(steps):,}." if steps else ""
    return escape(f"{words} Load the page again for what is new.")


def _made(model: Model, pictures: PictureSet, reporter: Reporter) -> list[Section | None]:
    """What the model makes, how it comes about, and what it makes of words it never saw."""
    if not (model.captioned and pictures.has_captions):
        asked = made.ask_for_classes(model, pictures, reporter)
        first = made.made_by_class if model.classes else made.made_from_noise
        return [first(model, pictures, asked), made.how_they_came_about(model, asked)]
    ids = _shown(pictures)
    asked = made.ask_for_pictures(model, pictures, ids, made.FIRST_SEED, reporter)
    sections: list[Section | None] = [made.made_from_words(model, pictures, ids, asked)]
    held, unseen = gallery.held_out_ids(pictures, made.HELD_OUT_SHOWN)
    if held:
        guessed = made.ask_for_pictures(model, pictures, held, made.HELD_OUT_SEED, reporter)
        sections.append(made.words_it_never_saw(model, pictures, held, unseen, guessed))
    return [*sections, made.how_they_came_about(model, asked)]


def _latent(model: Model, pictures: PictureSet) -> Section:
    row = (_shown(pictures) or pictures.train_ids.tolist())[0]
    kept = latent.what_the_latent_keeps(model, pictures)
    return section(kept.heading, kept.words, *kept.blocks, latent.into_noise(model, pictures.pixels[row]))


def _previews(run: Path) -> Section | None:
    """The newest sheet of each stage."""
    newest = [(stage, sheets[-1]) for stage in ("denoiser", "vae") if (sheets := preview_sheets(run, stage))]
    words = {"denoiser": "Samples", "vae": "The autoencoder: originals above what it gives back"}
    blocks = []
    for stage, (step, path) in newest:
        sheet = gallery.open_sheet(path)
        if sheet is not None:
            told = f"{words[stage]}, after {step:,} steps"
            plate = Plate(gallery.data_uri(sheet, 1200), told)
            look = ' class="look"' if stage == "denoiser" else ""
            blocks.append(f"<h3>{told}</h3>\n<figure{look}>{plate.html()}</figure>\n")
    return section("How far it is", "", *blocks) if blocks else None


def _facts(run: Path, model: Model | None, pictures: PictureSet, records: Records) -> Section:
    tables = [
        ("Data", facts.data_rows(pictures)),
        *((f"Stage: {name}", facts.stage_rows(records, stage)) for stage, name in facts.STAGES.items()),
    ]
    if model is not None:
        tables.append(("Model", facts.model_rows(run, model, latent.latent_shape(model, pictures))))
        tables.append(("Made with", facts.version_rows(model)))
    blocks = "".join(table(caption, rows) for caption, rows in tables if rows)
    refused = facts.refused_files(run)
    listed = folded(f"Files that could not be read ({pictures.refused:,})", listing(refused)) if refused else ""
    return section("Facts", "", f'<div class="facts">\n{blocks}</div>\n', listed)


def _settings(run: Path, model_facts: Mapping[str, Any]) -> Section | None:
    """The command that makes it again, and every setting."""
    again, config = commands.command_again(run, model_facts), run / "config.yaml"
    blocks = [code(again)] if again else []
    if config.is_file():
        blocks.append(folded("Every setting (config.yaml)", code(config.read_text(encoding="utf-8"))))
    words = "To the bit, on a machine of the same kind with the same number of threads." if model_facts else ""
    return section("How to make it again", words if again else "", *blocks) if blocks else None


def _going_on(run: Path, model: Model, pictures: PictureSet, records: Records) -> Section:
    shown = _shown(pictures) if model.captioned else []
    word = str(pictures.captions[shown[0]]) if shown else (model.classes or [""])[0]
    blocks = [
        f"<h3>{escape(what)}</h3>\n{code(text)}"
        for what, text in commands.next_commands(run, model, pictures, word, facts.spent(records))
    ]
    return section("How to go on", "", f'<div class="ways">\n{"".join(blocks)}</div>\n')


def _shown(pictures: PictureSet) -> list[int]:
    """The pictures whose captions the page asks for: the demonstration's own prompts where the data has them."""
    from calotype.images.openmoji import SHOWCASE

    return gallery.showcase_ids(pictures, SHOWCASE, made.SHOWN)
