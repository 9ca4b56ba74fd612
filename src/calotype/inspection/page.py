"""The paper the report is printed on: its style sheet, and the few pieces of HTML every section is made of.

The page asks the network for nothing (its content policy forbids it), runs no script, and follows the reader's light
or dark setting. Colours: plum brown, as a salted paper print, for what was trained on or made; slate for held-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #f1f1f0; --mount: #fff; --ink: #1e1b1f; --quiet: #6a656c; --line: #d8d6d8;
  --print: #74405a; --slate: #2f6a88;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Sitka Text", Cambria, Georgia, serif;
  --sans: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #18161a; --mount: #242127; --ink: #e9e6ea; --quiet: #a29ca6;
  --line: #3a363e; --print: #d99abb; --slate: #82b9d6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 17px/1.6 var(--serif); }
main, header, footer { max-width: 1160px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 52px; }
.maker { margin: 0; font-size: 15px; font-style: italic; color: var(--print); }
h1 { margin: 0; font-size: clamp(32px, 5.5vw, 52px); font-weight: 400; line-height: 1.12; letter-spacing: -.015em;
  overflow-wrap: anywhere; text-wrap: balance; }
h2 { margin: 72px 0 4px; font-size: 27px; font-weight: 400; line-height: 1.25; text-wrap: balance; }
main section:first-child h2 { margin-top: 30px; }
h3 { margin: 34px 0 6px; font-size: 18px; font-weight: 600; }
p { max-width: 66ch; text-wrap: pretty; margin: 0 0 18px; overflow-wrap: break-word; }
header p:last-child { margin: 14px 0 0; font-size: 19px; }
.quiet, figcaption, footer { color: var(--quiet); }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 6px; font: 13px/1.35 var(--sans); overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; background: var(--mount); }
.pairs { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 22px 24px; margin: 20px 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; padding: 5px; background: var(--mount);
  border: 1px solid var(--line); }
.sheet { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 4px; padding: 5px; margin: 12px 0 20px;
  background: var(--mount); border: 1px solid var(--line); }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(92px, 1fr); gap: 4px; overflow-x: auto;
  padding: 5px; margin: 12px 0 20px; background: var(--mount); border: 1px solid var(--line); }
.strip figcaption { margin: 3px 0 0; font-size: 12px; font-variant-numeric: tabular-nums; text-align: center; }
.panels { display: grid; align-items: end; gap: 30px 34px; margin: 20px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.panels figcaption { display: flex; flex-wrap: wrap; gap: 0 16px; margin: 0 0 4px; font-size: 13px; }
.panels b { color: var(--ink); font-weight: 600; }
.train { color: var(--print); } .held { color: var(--slate); } .value { font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 11px var(--sans); fill: var(--quiet); font-variant-numeric: tabular-nums; }
svg path { fill: none; stroke-linejoin: round; } svg circle { stroke: none; }
svg .grid { stroke: var(--line); stroke-width: 1; shape-rendering: crispEdges; }
svg .t { stroke: var(--print); stroke-width: 2; } svg .f { stroke: var(--print); stroke-width: 1; opacity: .28; }
svg .h { stroke: var(--slate); stroke-width: 2; stroke-dasharray: 5 3; }
svg circle.td { fill: var(--print); } svg circle.hd { fill: var(--slate); }
.facts { columns: 2; column-gap: 56px; margin: 12px 0; }
table { width: 100%; border-collapse: collapse; margin: 0 0 26px; font: 14px/1.45 var(--sans);
  break-inside: avoid; }
caption { text-align: left; font: 600 16px/1.6 var(--serif); }
th, td { padding: 5px 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { width: 42%; padding-right: 14px; font-weight: 400; color: var(--quiet); }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { margin: 4px 0 18px; padding: 12px 14px; overflow-x: auto; background: var(--mount);
  border: 1px solid var(--line); font: 14px/1.55 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.ways { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 2fr); gap: 0 34px; align-items: baseline; }
.ways h3 { margin: 0; font-size: 17px; font-weight: 400; }
summary { cursor: pointer; } details li { font: 14px/1.5 var(--sans); overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--slate); outline-offset: 2px; }
footer { padding-top: 30px; padding-bottom: 60px; margin-top: 60px; font-size: 15px; }
@media (max-width: 900px) { .pairs { grid-template-columns: repeat(3, minmax(0, 1fr)); } .facts { columns: 1; } }
@media (max-width: 640px) { body { font-size: 16px; } main, header, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 30px; } header p:last-child { font-size: 17px; } h2 { margin-top: 54px; font-size: 24px; }
  .pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px 12px; } .pair { padding: 3px; }
  .sheet { grid-template-columns: repeat(4, minmax(0, 1fr)); } .ways { display: block; } }
@media print { body { background: #fff; } .pair, figure { break-inside: avoid; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Plate:
    """One picture on the page: its data URI, what a reader who cannot see it is told, and the words below it."""

    uri: str
    alt: str
    caption: str = ""

    def html(self) -> str:
        return f'<img src="{self.uri}" alt="{escape(self.alt)}">'


def page(title: str, lede: str, sections: Sequence[str], foot: str) -> str:
    """The whole document; `lede`, `sections` and `foot` are HTML, `title` is text."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)} · calotype</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="maker">calotype</p>\n<h1>{escape(title)}</h1>\n<p>{lede}</p>\n</header>\n'
        f"<main>\n{''.join(sections)}</main>\n<footer>\n<p>{foot}</p>\n</footer>\n</body>\n</html>\n"
    )


def section(heading: str, words: str, *blocks: str) -> str:
    """A headed section: `words` (HTML) say what the reader is looking at."""
    said = f"<p>{words}</p>\n" if words else ""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{said}{''.join(blocks)}</section>\n"


def pairs(plates: Sequence[tuple[Plate, Plate]]) -> str:
    """Two pictures on one mount, again and again; the first one's caption stands below."""
    return _block(
        "pairs",
        (
            f'<figure><div class="pair">{left.html()}{right.html()}</div>'
            f"<figcaption>{escape(left.caption)}</figcaption></figure>"
            for left, right in plates
        ),
    )


def sheet(plates: Sequence[Plate]) -> str:
    """A contact sheet: pictures alone."""
    return _block("sheet", (plate.html() for plate in plates))


def strip(plates: Sequence[Plate], label: str) -> str:
    """A film strip, one row that scrolls sideways on a narrow screen (and by keyboard, hence the tabindex)."""
    figures = (f"<figure>{plate.html()}<figcaption>{escape(plate.caption)}</figcaption></figure>" for plate in plates)
    return _block("strip", figures, f' tabindex="0" role="group" aria-label="{escape(label)}"')


def table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    """A table of two columns, names and values; all text."""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f"<table>\n<caption>{escape(caption)}</caption>\n{cells}</table>\n"


def code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>\n'


def _block(kind: str, parts: Iterable[str], attributes: str = "") -> str:
    return f'<div class="{kind}"{attributes}>\n' + "\n".join(parts) + "\n</div>\n"


def number(value: float) -> str:
    """A number as one reads it: 12,345 or 0.0123, three significant digits below a thousand."""
    if abs(value) >= 999.5 or value == int(value):
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return f"{value:.3g}" if "e" in text else text.rstrip(".")
