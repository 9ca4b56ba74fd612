"""The pictures that vae-f8 learns from: emoji of all styles, and photographs whole and in pieces, all of 64 pixels.

    python runs/vae_pictures.py STYLES LANDSCAPES.tar OUT

STYLES is the folder that emoji_styles.py made, LANDSCAPES.tar the photographs of landscapes-128.sh. Of each photograph
there is one picture of the whole and two pieces. What the models' own trainings hold out is held out here as well.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import sys
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageOps

from calotype.core.errors import UserError
from calotype.images.split import held_out_split

SIZE, WHOLE, PIECES = 64, 128, 2
SUFFIXES = (".jpg", ".jpeg", ".png")


def photographs(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    """(name without suffix, train or test, content) of each picture of a tar, in its order."""
    try:
        with tarfile.open(archive) as packed:
            found = {}
            for member in packed:
                if member.isfile() and member.name.lower().endswith(SUFFIXES):
                    file = packed.extractfile(member)
                    assert file is not None
                    found[member.name.removeprefix("./")] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be read as a tar of pictures ({error})") from None
    if not found:
        raise UserError(f"{archive} has no .jpg or .png in it")
    splits = held_out_split([sha256(content).hexdigest() for content in found.values()], [None] * len(found))
    for (name, content), split in zip(found.items(), splits):
        yield os.path.splitext(name)[0].replace("/", "-"), "train" if split == "train" else "test", content


def cut(content: bytes, draw: random.Random) -> Iterator[tuple[str, Image.Image]]:
    """(what it is called, picture): the whole photograph reduced, then pieces from anywhere in it."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if picture.size != (WHOLE, WHOLE):
        picture = ImageOps.fit(picture, (WHOLE, WHOLE), Image.Resampling.LANCZOS)
    yield "land-{}", picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    for piece in range(PIECES):
        left, top = draw.randrange(WHOLE - SIZE + 1), draw.randrange(WHOLE - SIZE + 1)
        yield f"crop-{{}}-{piece}", picture.crop((left, top, left + SIZE, top + SIZE))


def write(styles: Path, archive: Path, out: Path) -> dict[str, int]:
    """Fill OUT, whole or not at all; returns how many pictures are to train on, and how many held out."""
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for part in ("train", "test"):
        shutil.copytree(styles / part, aside / part, copy_function=_link)
    draw = random.Random(0)
    for name, part, content in photographs(archive):
        for called, picture in cut(content, draw):
            picture.save(aside / part / f"{called.format(name)}.png", compress_level=1)
    aside.rename(out)
    return {part: len(os.listdir(out / part)) for part in ("train", "test")}


def _link(source: str, target: str) -> None:
    """The same file under another name, where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("styles", "landscapes", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.out.exists():
        print(f"{options.out} is there: remove it to make it anew", file=sys.stderr)
        return 0
    try:
        counts = write(options.styles, options.landscapes, options.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {counts['train']:,} pictures to train on, {counts['test']:,} held out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
