"""Damaged and hostile picture files through the real `prepare`: each must become a row or a line of quarantine.jsonl.

    python benchmarks/mutated_pictures.py [--files 10000] [--seed 0] [--size 32] [--seconds 10]

Cuts, flips, overwrites and splices pictures of every format the tests know (the unusual ones too), gives them wrong
endings, and adds headers that claim what is not there. Prints one JSON object; exit 1 if a file is unaccounted for,
if an untouched picture was refused, or if anything but `prepare` came to an end.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from calotype.core.files import read_lines
from calotype.images.dataset import prepare
from calotype.images.folder import SUFFIXES
from calotype.images.settings import PictureConfig
from calotype.images.source import open_source
from tests.images.exotic import exotic_files
from tests.images.making import Heard, encoded

Chance = random.Random
CHUNK = struct.Struct(">I4s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="a picture may take to decode")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = trial(Path(folder), options.files, options.seed, options.size, options.seconds)
    print(json.dumps(result, indent=2))
    return int(bool(result["crashes"] or result["intact_refused"]))


def trial(folder: Path, files: int, seed: int, size: int, seconds: float) -> dict[str, object]:
    """Write the files, prepare them, and account for each."""
    kinds = write_files(folder / "pictures", files, Chance(seed))
    started = time.monotonic()
    with Peak() as peak:
        config = PictureConfig(max_refused=1.0, seconds=seconds)
        found = prepare(open_source(folder / "pictures", size=size), size, folder / "data", Heard(), config)
    taken = time.monotonic() - started
    refused = {line["path"]: str(line["reason"]) for line in read_lines(folder / "data" / "quarantine.jsonl")}
    accepted = set(found.names)
    deaths = {name: reason for name, reason in refused.items() if reason.startswith("its decoder")}
    return {
        "files": len(kinds),
        "accepted": len(accepted),
        "refused": len(refused),
        "crashes": [name for name in kinds if (name in accepted) == (name in refused)],
        "intact": sum(kind == "intact" for kind in kinds.values()),
        "intact_refused": sorted(name for name in refused if kinds[name] == "intact"),
        "decoders_killed": Counter(deaths.values()),
        "killed_by": Counter(kinds[name] for name in deaths),
        "accepted_by_kind": Counter(kinds[name] for name in sorted(accepted)),
        "refused_by_kind": Counter(kinds[name] for name in refused),
        "reasons": dict(Counter(re.sub(r"\d+", "#", reason)[:60] for reason in refused.values()).most_common(25)),
        "seconds": round(taken, 1),
        "peak_rss_mib": {"before": peak.before, "parent": peak.parent, "decoder": peak.decoder},
    }


class Peak:
    """The most memory, in MiB, that this process took meanwhile, and a child of it, as often as one can look.

    (What the system says of children that ended counts in what we were when they were forked.)
    """

    def __init__(self) -> None:
        self.before, self.decoder = _most_memory("self"), 0
        self._over = Event()
        self._thread = Thread(target=self._look)

    @property
    def parent(self) -> int:
        return _most_memory("self")

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            for task in Path("/proc/self/task").glob("*/children"):
                for child in _text(task).split():
                    self.decoder = max(self.decoder, _most_memory(child))


def _most_memory(process: str) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", _text(Path(f"/proc/{process}/status")))
    return int(found[1]) // 2**10 if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""


def write_files(folder: Path, count: int, chance: Chance) -> dict[str, str]:
    """`count` files, every exotic one untouched first; which kind of damage each has, by name."""
    folder.mkdir(parents=True)
    whole = [file.content for file in exotic_files().values()] + textured(chance)
    suffixes = sorted(SUFFIXES)
    damages = [*DAMAGES.items()] * 6 + [*HOSTILE.items()]
    kinds = {}
    for number in range(count):
        if number < len(whole):
            kind, content = "intact", whole[number]
        else:
            kind, damage = damages[number % len(damages)]
            content = damage(chance.choice(whole), chance)
        name = f"{number:05}-{kind}{chance.choice(suffixes)}"  # endings at random: the content decides
        (folder / name).write_bytes(content)
        kinds[name] = kind
    return kinds


def textured(chance: Chance) -> list[bytes]:
    """Pictures with something in them for the decoders to work on, in the formats of the web."""
    values = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (96, 128, 4), dtype=np.uint8)
    image = Image.fromarray(values).resize((256, 192))
    made = [encoded(image, "PNG"), encoded(image, "WEBP"), encoded(image, "TIFF", compression="tiff_lzw")]
    made += [encoded(image.convert("RGB"), "JPEG", progressive=on) for on in (False, True)]
    return [*made, encoded(image.convert("P"), "GIF"), encoded(image.convert("RGB"), "BMP")]


def truncate(content: bytes, chance: Chance) -> bytes:
    return content[: chance.randrange(len(content))]


def flip_bits(content: bytes, chance: Chance) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 4, 32))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return mended(bytes(changed)) if chance.random() < 0.5 else bytes(changed)


def overwrite(content: bytes, chance: Chance) -> bytes:
    start, length = chance.randrange(len(content)), chance.choice((1, 2, 4, 16, 64))
    filling = chance.choice((b"\xff" * length, bytes(length), b"\x7f\xff" * length, chance.randbytes(length)))
    return mended(content[:start] + filling[:length] + content[start + length :])


def in_the_header(content: bytes, chance: Chance) -> bytes:
    """Extreme numbers where sizes and offsets stand."""
    start = chance.randrange(min(len(content), 64))
    return mended(content[:start] + chance.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4))) + content[start + 4 :])


def zeros(content: bytes, chance: Chance) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + bytes(len(content) - start)


def insert_or_remove(content: bytes, chance: Chance) -> bytes:
    start, length = chance.randrange(len(content)), chance.randrange(1, 64)
    grown = content[:start] + chance.randbytes(length) + content[start:]
    return grown if chance.random() < 0.5 else content[:start] + content[start + length :]


def splice(content: bytes, chance: Chance) -> bytes:
    """The end of a file repeated inside it."""
    start = chance.randrange(len(content))
    return content[:start] + content[chance.randrange(len(content)) :]


def mended(content: bytes) -> bytes:
    """A PNG's checksums made right, so that the damage reaches the decoder; anything else as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        length, kind = CHUNK.unpack_from(content, at)
        if at + 12 + length > len(content):
            break
        body = content[at + 8 : at + 8 + length]
        parts += [content[at : at + 8], body, struct.pack(">I", zlib.crc32(kind + body))]
        at += 12 + length
    return b"".join(parts) + content[at:]


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes], colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    listed = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in listed
    )


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", 8)  # its own next page


def tiff_claiming(side: int, compression: int) -> bytes:
    known = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    return tiff(*known, (273, 4, 1, 8), (278, 4, 1, side), (279, 4, 1, side))


def claiming(side: int) -> list[bytes]:
    """Headers of pictures `side` pixels wide and high, with next to nothing behind them."""
    short, long = struct.pack("<H", side & 0xFFFF), struct.pack("<I", side)
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + long[:3] * 2
    bmp = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    frame = struct.pack(">HBHHB", 11, 8, side & 0xFFFF, side & 0xFFFF, 1) + b"\1\x11\0"
    return [
        png(side, side, zlib.compress(bytes(99))),
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bmp,
        b"GIF89a" + short * 2 + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + short * 2 + b"\0\2\2\x44\1\0;",
        b"RIFF" + struct.pack("<I", len(vp8x) + 4) + b"WEBP" + vp8x,
        b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(99) + b"\xff\xd9",
        b"P6 %d %d 255\n" % (side, side),
        b"P3 %d %d 7\n1 2 3" % (side, side),
        *(tiff_claiming(side, compression) for compression in (1, 5, 8, 32773, 7, 50000)),
    ]


def bomb(_: bytes, chance: Chance) -> bytes:
    return chance.choice(claiming(chance.choice((7_999, 16_000, 46_340, 65_535, 2**24 - 1, 2**31 - 1))))


def unpacking_bomb(_: bytes, chance: Chance) -> bytes:
    return chance.choice(unpacking_bombs())


@lru_cache
def unpacking_bombs() -> list[bytes]:
    """Small files that are large inside: just below the ceiling, or in what accompanies the pixels."""
    large = zlib.compress(bytes(2**26), 9)
    small = zlib.compress(bytes(64 * 65), 9)
    frames = [Image.new("P", (400, 400), value) for value in range(60)]
    return [
        png(8_000, 8_000, zlib.compress(bytes(64_008_000), 9), colour=0),
        png(8, 8, large),
        png(64, 64, small, (b"zTXt", b"a\0\0" + large), colour=0),
        png(64, 64, small, (b"iCCP", b"a\0\0" + large), colour=0),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    ]


def junk(_: bytes, chance: Chance) -> bytes:
    starts = (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"P5 ",
        b"P3 9 9 9\n",
    )
    return chance.choice((*starts, b"RIFF\xff\xff\0\0WEBPVP8 ")) + chance.randbytes(
        chance.choice((8, 99, 2_000, 100_000))
    )


DAMAGES: dict[str, Callable[[bytes, Chance], bytes]] = {
    "wrong-ending": lambda content, _: content,
    "truncated": truncate,
    "bits-flipped": flip_bits,
    "overwritten": overwrite,
    "header": in_the_header,
    "zeros": zeros,
    "shifted": insert_or_remove,
    "spliced": splice,
}
HOSTILE: dict[str, Callable[[bytes, Chance], bytes]] = {
    "empty": lambda *_: b"",
    "nothing-but-zeros": lambda _, chance: bytes(chance.randrange(1, 10_000)),
    "junk": junk,
    "bomb-header": bomb,
    "unpacks": unpacking_bomb,
}

if __name__ == "__main__":
    sys.exit(main())
