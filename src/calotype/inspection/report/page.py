"""The few pieces of HTML that every section of the report is made of; their looks are in `style.css`.

The page asks the network for nothing (its content policy forbids it), runs no script, and follows the reader's light
or dark setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
SECONDS_A_FRAME = 0.14


@dataclass(frozen=True)
class Plate:
    """One picture on the page: its data URI, what a reader who cannot see it is told, and the words below it.

    A flagged one is outlined.
    """

    uri: str
    alt: str
    caption: str = ""
    flagged: bool = False

    def html(self) -> str:
        flag = ' class="flagged"' if self.flagged else ""
        return f'<img src="{self.uri}" alt="{escape(self.alt)}"{flag}>'


@dataclass(frozen=True)
class Section:
    """A headed part of the page: `words` (HTML) say what the reader is looking at, `blocks` are the rest of it."""

    heading: str
    words: str
    blocks: tuple[str, ...]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z]+", "-", self.heading.lower()).strip("-")

    def html(self) -> str:
        said = f"<p>{self.words}</p>\n" if self.words else ""
        return (
            f'<section id="{self.anchor}">\n<h2>{escape(self.heading)}</h2>\n{said}{"".join(self.blocks)}</section>\n'
        )


def section(heading: str, words: str, *blocks: str) -> Section:
    """See `Section`."""
    return Section(heading, words, blocks)


def page(title: str, lede: str, sections: Sequence[Section], foot: str) -> str:
    """The whole document; `lede` and `foot` are HTML, `title` is text."""
    links = "".join(f'<li><a href="#{part.anchor}">{escape(part.heading)}</a></li>\n' for part in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)} · calotype</title>\n'
        f"<style>\n{_style()}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="maker">calotype</p>\n<h1>{escape(title)}</h1>\n<p class="lede">{lede}</p>\n'
        f'<nav aria-label="Sections"><ul>\n{links}</ul></nav>\n</header>\n'
        f"<main>\n{''.join(part.html() for part in sections)}</main>\n"
        f"<footer>\n<p>{foot}</p>\n</footer>\n</body>\n</html>\n"
    )


@cache
def _style() -> str:
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def mounts(figures: Iterable[str]) -> str:
    """Figures of `mount` or `pair` in rows."""
    return _block("mounts", figures)


def mount(plates: Sequence[Plate], note: str = "") -> str:
    """One picture large and two beside it, or two alike; the first one's caption stands below, then `note` (HTML)."""
    kind = "mount" if len(plates) == 3 else "pair"
    said = f"{escape(plates[0].caption)}{f'<small>{note}</small>' if note else ''}"
    return (
        f'<figure><div class="{kind}">{"".join(plate.html() for plate in plates)}</div>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def sheet(columns: Iterable[Sequence[Plate]]) -> str:
    """A contact sheet; plates of one column stand below one another. Nothing where there are none."""
    figures = [f"<figure>{''.join(plate.html() for plate in plates)}</figure>" for plates in columns]
    return _block("sheet", figures) if figures else ""


def strip(plates: Sequence[Plate], label: str) -> str:
    """A film strip, one row that scrolls sideways on a narrow screen (and by keyboard, hence the tabindex)."""
    figures = (f"<figure>{plate.html()}<figcaption>{escape(plate.caption)}</figcaption></figure>" for plate in plates)
    return _block("strip", figures, f' tabindex="0" role="group" aria-label="{escape(label)}"')


def films(sprites: Sequence[tuple[Plate, int]], *, seconds: float = SECONDS_A_FRAME, wide: bool = False) -> str:
    """Moving pictures without a script: each plate holds its frames side by side, and is drawn past a window.

    They stand still at the end for readers who ask for less motion, and for all at the tick of a box. The last frame
    stays for a quarter of the time.
    """
    figures = []
    for plate, frames in sprites:
        timing = f"--frames:{frames};--time:{frames * seconds / 0.75:.1f}s"
        style = f"{timing};animation-timing-function:steps({frames},jump-none)"
        picture = f'<img src="{plate.uri}" alt="{escape(plate.alt)}" style="{style}">'
        said = f"<figcaption>{escape(plate.caption)}</figcaption>" if plate.caption else ""
        figures.append(f'<figure><div class="film">{picture}</div>{said}</figure>')
    hold = '<label class="hold"><input type="checkbox"> hold the film</label>\n'
    return hold + _block("films wide" if wide else "films", figures)


def table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    """A table of two columns, names and values; all text."""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f"<table>\n<caption>{escape(caption)}</caption>\n{cells}</table>\n"


def folded(summary: str, *blocks: str) -> str:
    """What only some will want to read."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{''.join(blocks)}</details>\n"


def listing(entries: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>\n" + "".join(f"<li>{escape(entry)}</li>\n" for entry in entries) + "</ul>\n"


def code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>\n'


def note(text: str) -> str:
    """How the numbers or pictures above came about, in small print."""
    return f'<p class="with">{escape(text)}</p>\n' if text else ""


def _block(kind: str, parts: Iterable[str], attributes: str = "") -> str:
    return f'<div class="{kind}"{attributes}>\n' + "\n".join(parts) + "\n</div>\n"


def number(value: float) -> str:
    """A number as one reads it: 12,345 or 0.0123, three significant digits below a thousand."""
    if abs(value) >= 999.5 or value == int(value):
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return f"{value:.3g}" if "e" in text else text.rstrip(".")
