"""May pictures be mirrored? Not where left and right, or writing, are part of what they are of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ENOUGH = 1 / 200  # a rarer word is about a few pictures: mirroring serves the others more than it harms these

_SIDES = re.compile(
    r"\b(?:left|right)(?:wards?|most)?\b(?!\s+(?:now|angled?s?|here|there|before|after|behind|over|side up)\b)", re.I
)
_NOT_SIDES = re.compile(r"\b(?:all|human|civil)\s+rights?\b", re.I)
_TURNS = re.compile(r"\b(?:counter-?|anti-?)?clockwise\b|\b\w+[\s-]o[’']clock\b", re.I)
_WRITING = re.compile(
    r"\b(?:texts?|letters?|digits?|numerals?|alphabets?|handwrit(?:ing|ten)|glyphs?|fonts?|typography|calligraphy"
    r"|kanji|hiragana|katakana|hangul|keycaps?|licen[cs]e plates?|number plates?)\b",
    re.I,
)
_REASONS = ((_SIDES, "tell left from right"), (_TURNS, "speak of turning"), (_WRITING, "speak of writing"))


def mirror_matters(captions: Sequence[str | None], classes: Sequence[str]) -> str:
    """Why pictures with these (English) captions and classes should not be mirrored; empty where nothing says so."""
    characters = [name for name in classes if len(name) == 1 and name.isalnum()]
    if len(characters) >= 2 and 2 * len(characters) >= len(classes):
        return f"classes are letters or digits ({_listed(characters)})"
    for what, texts in (("captions", [caption for caption in captions if caption]), ("classes", list(classes))):
        # A class is named as `left_arrow` or `LeftArrow` as often as in words of their own.
        spoken = texts if what == "captions" else [_as_words(name) for name in texts]
        for pattern, does in _REASONS:
            found = [text for text, words in zip(texts, spoken, strict=True) if _says(pattern, words)]
            if found and len(found) >= ENOUGH * len(texts):
                return f"{what} {does} ({_listed(dict.fromkeys(found))})"
    return ""


def _says(pattern: re.Pattern[str], text: str) -> bool:
    if pattern is _SIDES:
        text = _NOT_SIDES.sub(" ", text)
    return pattern.search(text) is not None


def _as_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)


def _listed(examples: Iterable[str]) -> str:
    """The first two, in quotes, each cut to a length that fits a line."""
    first = [example if len(example) <= 40 else example[:39] + "…" for example in examples][:2]
    return ", ".join(f"'{example}'" for example in first)
