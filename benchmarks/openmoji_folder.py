"""OpenMoji as a folder with as many captions held out as one likes, for scores on prompts never seen.

    python benchmarks/openmoji_folder.py FOLDER [--held-out 200] [--size 64]
    calotype train FOLDER

The built-in split holds out about 80. Who is held out follows from the caption alone: the smallest hashes.
"""

from __future__ import annotations

import argparse
import json
import sys
from hashlib import sha256
from pathlib import Path

from calotype.images.openmoji import SHOWCASE, openmoji_source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    source = openmoji_source(options.size)
    free = [str(picture.caption) for picture in source.pictures if picture.caption not in SHOWCASE]
    held_out = set(sorted(free, key=lambda caption: sha256(caption.encode()).hexdigest())[: options.held_out])
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for picture in source.pictures:
        part = "test" if picture.caption in held_out else "train"
        name = Path(picture.name).with_suffix(".png").name
        (options.folder / part).mkdir(parents=True, exist_ok=True)
        (options.folder / part / name).write_bytes(picture.read())
        rows[part].append({"file_name": name, "text": str(picture.caption)})
    for part, lines in rows.items():
        (options.folder / part / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{options.folder}: {len(rows['train'])} pictures to train on, {len(rows['test'])} held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
