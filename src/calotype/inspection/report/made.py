"""The first pages of the report: what the model makes, beside what is real and what it may have copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from calotype.core.progress import Reporter
from calotype.inspection.report import gallery
from calotype.inspection.report.drawing import MOST_FILMED, Drawn, Model, draw, evenly, how_drawn
from calotype.inspection.report.neighbours import Neighbour, find_neighbours
from calotype.inspection.report.page import Plate, Section, films, mount, mounts, note, section, sheet, strip

if TYPE_CHECKING:
    from calotype.images.dataset import PictureSet

SHOWN = 32
HELD_OUT_SHOWN = 16
MOST_CLASSES = 16
FIRST_SEED, HELD_OUT_SEED = 0, 1000
_BESIDE = (
    "Large: what the model made of the words. Beside it, above: {real}; below: the training picture nearest to what it "
    "made, by its pixels."
)


@dataclass(frozen=True)
class Asked:
    """Pictures that were drawn for the page, and what each was asked to be; `filmed` names those on their way."""

    drawn: Drawn
    words: list[str]
    near: list[Neighbour]

    @property
    def filmed(self) -> list[str]:
        """What the filmed pictures were asked to be."""
        return [self.words[row] or f"seed {self.drawn.seed + row}" for row in self.drawn.rows]


def ask_for_pictures(model: Model, pictures: PictureSet, ids: Sequence[int], seed: int, reporter: Reporter) -> Asked:
    """One picture for the words of each row of the set; the first ones are filmed."""
    prompts = [str(pictures.captions[i]) for i in ids]
    labels = [pictures.labels[i] for i in ids] if model.classes else []
    given = [label for label in labels if label is not None]
    both = given if len(given) == len(ids) else []
    filmed = range(min(MOST_FILMED, len(ids))) if seed == FIRST_SEED else ()
    drawn = draw(model, reporter, prompts=prompts, labels=both, seed=seed, filmed=filmed)
    return Asked(drawn, prompts, find_neighbours(drawn.images, pictures, ids))


def ask_for_classes(model: Model, pictures: PictureSet, reporter: Reporter) -> Asked:
    """A few pictures of each of the first classes, or of no class where the model knows none."""
    shown = model.classes[:MOST_CLASSES]
    each = max(4, min(8, SHOWN // len(shown))) if shown else SHOWN
    filmed = range(0, len(shown) * each, each)[:MOST_FILMED] if shown else range(MOST_FILMED)
    drawn = draw(model, reporter, labels=shown, num_images=each, seed=FIRST_SEED, filmed=filmed)
    words = [label for label in shown for _ in range(each)] or [""] * each
    return Asked(drawn, words, find_neighbours(drawn.images, pictures))


def made_from_words(model: Model, pictures: PictureSet, ids: Sequence[int], asked: Asked) -> Section:
    """The demonstration's own prompts, or an even choice of training captions."""
    real = "a picture that taught it those words"
    return section("Made from words", _words(real, asked), _mounts(pictures, ids, asked), _small_print(model, asked))


def words_it_never_saw(model: Model, pictures: PictureSet, ids: Sequence[int], unseen: bool, asked: Asked) -> Section:
    """The same for captions of held-out pictures."""
    real = "the picture it would have had to guess" if unseen else "a picture kept from it"
    words = _words(real, asked)
    if unseen:
        heading, more = "Words it never saw", "These words and pictures were kept from it. "
    else:
        heading = "Beside pictures it never saw"
        more = "These pictures were kept from it; their words, though, occur among the training pictures too. "
    return section(heading, more + words, _mounts(pictures, ids, asked), _small_print(model, asked))


def made_by_class(model: Model, pictures: PictureSet, asked: Asked) -> Section:
    """Two sheets a class: made, each above the nearest training picture, then real ones."""
    blocks = []
    for label in dict.fromkeys(asked.words):
        rows = [k for k, word in enumerate(asked.words) if word == label]
        mine = [i for i in pictures.train_ids.tolist() if pictures.labels[i] == label]
        real = gallery.real_sheet(pictures, gallery.spread(pictures, mine, len(rows)))
        blocks += [f"<h3>{escape(label)}</h3>\n", sheet(_columns(pictures, asked, rows)), sheet(real)]
    rest = len(model.classes) - MOST_CLASSES
    more = f" {rest} more classes are not shown." if rest > 0 else ""
    words = f"For every class two sheets: {_columns_in_words(asked)}; then real ones.{more}"
    return section("Made by class", words, *blocks, _small_print(model, asked))


def made_from_noise(model: Model, pictures: PictureSet, asked: Asked) -> Section:
    """What a model makes that is told nothing."""
    real = gallery.real_sheet(pictures, gallery.spread(pictures, pictures.train_ids.tolist(), len(asked.words)))
    return section(
        "Made from noise",
        f"{_columns_in_words(asked).capitalize()}.",
        sheet(_columns(pictures, asked, range(len(asked.words)))),
        _small_print(model, asked),
        "<h3>What it learned from</h3>\n",
        sheet(real),
    )


def how_they_came_about(model: Model, asked: Asked) -> Section:
    """The denoising film, and the first of it frame by frame."""
    drawn, names = asked.drawn, asked.filmed
    sprites = [
        gallery.sprite(drawn.held[:, k], f"Film from noise to the picture: {name}", name)
        for k, name in enumerate(names)
    ]
    few = evenly(range(len(drawn.steps)), 9)
    rows = {"What the sampler holds": drawn.held[:, 0], "What the model believes": drawn.believed}
    strips = "".join(
        strip(
            [gallery.plate(frames[k], f"{what}, step {drawn.steps[k]}", f"step {drawn.steps[k]}") for k in few],
            f"{what}, step by step: {names[0]}",
        )
        for what, frames in rows.items()
    )
    return section(
        "How a picture comes about",
        "Sampling begins with noise. At each step the model says which clean picture it believes in, and the sampler "
        "goes a little way there. The films show what the sampler holds.",
        films(sprites),
        f"<p>The first one step by step ({escape(names[0])}). Above: what the sampler holds, with what is left of the "
        "noise; below: what the model believes.</p>\n",
        strips,
        note(how_drawn(model, drawn)),
    )


def _words(real: str, asked: Asked) -> str:
    if asked.near:
        return _BESIDE.format(real=real)
    return f"Left on each mount: what the model made of the words. Right: {real}."


def _mounts(pictures: PictureSet, ids: Sequence[int], asked: Asked) -> str:
    figures = []
    for k, row in enumerate(ids):
        word, seed = asked.words[k], asked.drawn.seed + k
        alt = f"Made by the model from the words: {word} (seed {seed})"
        plates = [gallery.plate(asked.drawn.images[k], alt, word)]
        plates.append(gallery.plate(pictures.pixels[row], f"The real picture: {word}"))
        near = asked.near[k] if asked.near else None
        if near is not None:
            plates.append(_nearest(pictures, near))
        figures.append(mount(plates, "" if near is None else _how_near(pictures, row, near)))
    return mounts(figures)


def _nearest(pictures: PictureSet, near: Neighbour) -> Plate:
    told = f"Nearest training picture{', as near as a copy' if near.copy else ''}"
    return gallery.plate(pictures.pixels[near.row], f"{told}: {gallery.name_of(pictures, near.row)}")


def _how_near(pictures: PictureSet, row: int, near: Neighbour) -> str:
    """In a few words (HTML): which picture is the nearest, and whether it was copied."""
    name = gallery.name_of(pictures, near.row)
    if near.row == row:
        told = "this very picture"
    else:
        told = "another of these words" if name == gallery.name_of(pictures, row) else escape(name)
    return f'<span class="flag">memory</span> of {told}' if near.copy else f"nearest: {told}"


def _columns(pictures: PictureSet, asked: Asked, rows: Sequence[int]) -> list[list[Plate]]:
    """Each made picture above its nearest training picture."""
    columns = []
    for k in rows:
        what = f"Made by the model: {asked.words[k]}" if asked.words[k] else "Made by the model"
        column = [gallery.plate(asked.drawn.images[k], f"{what} (seed {asked.drawn.seed + k})")]
        if asked.near:
            column.append(replace(_nearest(pictures, asked.near[k]), flagged=asked.near[k].copy))
        columns.append(column)
    return columns


def _columns_in_words(asked: Asked) -> str:
    if not asked.near:
        return "what the model made"
    above = "what the model made, each above the training picture that is nearest to it by its pixels"
    return f"{above} (outlined where it is as near as a copy)"


def _small_print(model: Model, asked: Asked) -> str:
    copies = sum(near.copy for near in asked.near)
    counted = (
        f" Memory: {copies} of {len(asked.near)} lie as near to one training picture as copies do."
        if asked.near
        else ""
    )
    return note(how_drawn(model, asked.drawn) + counted)
