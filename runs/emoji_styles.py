"""The emoji of OpenMoji and of five other sets as one folder: each concept in up to six styles of drawing.

    npm pack @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji@1.2.7 \
        @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/emojione@1.2.3
    python runs/emoji_styles.py PACKAGES OUT [--size 64]

PACKAGES is the folder with those five .tgz. OUT/{train,test}/*.png and OUT/metadata.jsonl are written; captions are
"red apple" for OpenMoji and "red apple, noto style" for the others. The split is by concept, so that a caption held out
of one style is held out of all. Needs calotype[demo].
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.images.openmoji import openmoji_source, split_by_caption

OPENMOJI = "openmoji"
# Style, version of its package and sha256 of the .tgz: other versions draw other pictures.
PACKAGES = {
    "noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    "fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
}

_SKIN = re.compile(r"skin-tone|tone[1-5]")
_FLUENT_SKIN = re.compile(r"-(medium-light|medium-dark|light|dark|medium)$")
_FLAG = re.compile(r"flag-(?:for-)?(?:flag-)?(.+)$")


@dataclass(frozen=True)
class Drawing:
    """One picture: what its file is called, what it shows, in which style, as PNG bytes."""

    name: str
    concept: str
    style: str
    png: bytes

    @property
    def caption(self) -> str:
        return self.concept if self.style == OPENMOJI else f"{self.concept}, {self.style.replace('-', ' ')} style"

    @property
    def part(self) -> str:
        return "train" if split_by_caption(self.concept) == "train" else "test"


def openmoji(size: int) -> Iterator[Drawing]:
    for picture in openmoji_source(size).pictures:
        yield Drawing(Path(picture.name).stem, str(picture.caption), OPENMOJI, picture.read())


def icons(archive: Path, expected: str) -> dict[str, Any]:
    """icons.json of a package; UserError where it is not the very package that is meant."""
    if not archive.is_file():
        raise UserError(f"{archive} is missing", "fetch it with npm pack: the first lines of this script say how")
    if sha256(archive.read_bytes()).hexdigest() != expected:
        raise UserError(f"{archive} is not the published package of that version", "fetch it again with npm pack")
    with tarfile.open(archive) as packed:
        file = packed.extractfile("package/icons.json")
        assert file is not None
        return dict(json.load(file))


def in_style(style: str, found: Mapping[str, Any], concepts: Mapping[str, str], size: int) -> Iterator[Drawing]:
    """The drawings of one package, one a concept; `concepts` are OpenMoji's captions by `key`. No skin tones."""
    import resvg_py

    width, height, seen = found.get("width", 16), found.get("height", 16), set()
    for name, icon in found["icons"].items():
        key = _as_openmoji(name, concepts)
        toned = _SKIN.search(name) or (
            style.startswith("fluent") and key not in concepts and _FLUENT_SKIN.search(name) is not None
        )
        if toned or icon.get("hidden") or key in seen:
            continue
        seen.add(key)
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon.get('width', width)} {icon.get('height', height)}"
        links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        svg = f'<svg {links} viewBox="{box}">{icon["body"]}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
        yield Drawing(name, concepts.get(key, name.replace("-", " ")), style, bytes(png))


def key_of(caption: str) -> str:
    """A caption as these packages spell names: "flag: Côte d'Ivoire" -> "flag-cote-divoire"."""
    plain = unicodedata.normalize("NFKD", caption).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("&", "and").replace("'", "")).strip("-")


def _as_openmoji(name: str, concepts: Mapping[str, str]) -> str:
    """The packages call a flag flag-for-france, flag-flag-france or flag-france."""
    flag = _FLAG.match(name)
    return f"flag-{flag[1]}" if flag and f"flag-{flag[1]}" in concepts else name


def write(drawings: Iterator[Drawing], out: Path) -> dict[str, int]:
    """Fill OUT, whole or not at all; returns how many pictures each style has."""
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for part in ("train", "test"):
        (aside / part).mkdir(parents=True)
    counts: dict[str, int] = {}
    with open(aside / "metadata.jsonl", "w", encoding="utf-8") as rows:
        for drawing in drawings:
            name = f"{drawing.part}/{drawing.style}--{drawing.name}.png"
            (aside / name).write_bytes(drawing.png)
            rows.write(json.dumps({"file_name": name, "text": drawing.caption}) + "\n")
            counts[drawing.style] = counts.get(drawing.style, 0) + 1
    aside.rename(out)
    return counts


def all_styles(packages: Path, size: int) -> Iterator[Drawing]:
    found = {
        style: icons(packages / f"iconify-json-{style}-{version}.tgz", digest)
        for style, (version, digest) in PACKAGES.items()
    }
    concepts: dict[str, str] = {}
    for drawing in openmoji(size):
        concepts[key_of(drawing.concept)] = drawing.concept
        yield drawing
    for style, one in found.items():
        yield from in_style(style, one, concepts, size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    if options.out.exists():
        print(f"{options.out} is there: remove it to make it anew", file=sys.stderr)
        return 0
    try:
        counts = write(all_styles(options.packages, options.size), options.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    told = ", ".join(f"{count:,} {style}" for style, count in counts.items())
    print(f"{options.out}: {sum(counts.values()):,} pictures ({told})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
