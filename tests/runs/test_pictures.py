"""The picture sets of the shipped models: one concept in several styles, one split for all of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calotype.core.errors import UserError
from calotype.images import open_source
from calotype.images.openmoji import SHOWCASE, split_by_caption
from calotype.images.split import held_out_split

CIRCLE = '<circle cx="8" cy="8" r="6" fill="red"/>'
HELD_OUT = "dragon"


def package(folder: Path, style: str, icons: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """An npm package of these icons; its version and digest."""
    content = json.dumps({"width": 16, "height": 16, "icons": icons}).encode()
    path = folder / f"iconify-json-{style}-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as packed:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(content)
        packed.addfile(member, io.BytesIO(content))
    return "1.0.0", sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def styles(script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with two small packages, and five emoji of OpenMoji."""
    module = script("emoji_styles")
    names = ("red-apple", "dragon", "flag-for-france", "red-apple-light", "thumbs-up-medium-dark", "no-such-thing")
    toned = {"waving-hand-light-skin-tone": {"body": CIRCLE}, "gone": {"body": CIRCLE, "hidden": True}}
    icons = {name: {"body": CIRCLE} for name in names} | toned
    wide = {"dragon": {"body": CIRCLE, "width": 32, "left": -8}, "flag-flag-france": {"body": CIRCLE}}
    found = {"fluent-emoji": package(tmp_path, "fluent-emoji", icons), "noto": package(tmp_path, "noto", wide)}
    monkeypatch.setattr(module, "PACKAGES", found)
    wanted = ("red apple", "dragon", "flag: France", "dog face", "rocket")
    real = [one for one in open_source("openmoji", size=16).pictures if one.caption in wanted]
    drawn = [module.Drawing(Path(one.name).stem, one.caption, "openmoji", one.read()) for one in real]
    monkeypatch.setattr(module, "openmoji", lambda size: iter(drawn))
    return module


def test_each_concept_has_its_caption_in_every_style_and_one_split(styles: ModuleType, tmp_path: Path) -> None:
    counts = styles.write(styles.all_styles(tmp_path, 16), tmp_path / "out")
    assert counts == {"openmoji": 5, "fluent-emoji": 4, "noto": 2}
    pictures = open_source(str(tmp_path / "out"), size=16).pictures
    assert {picture.caption: picture.split for picture in pictures} == {
        "red apple": "train",
        "dragon": "held-out",
        "flag: France": "train",
        "dog face": "train",
        "rocket": "train",
        "red apple, fluent emoji style": "train",
        "dragon, fluent emoji style": "held-out",
        "flag: France, fluent emoji style": "train",
        "no such thing, fluent emoji style": split_by_caption("no such thing"),
        "dragon, noto style": "held-out",
        "flag: France, noto style": "train",
    }
    for picture in pictures:
        with Image.open(io.BytesIO(picture.read())) as image:
            assert image.size[0] == 16
            assert np.asarray(image.convert("RGBA")).any()  # something is drawn
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_showcase_is_never_held_out() -> None:
    assert {split_by_caption(caption) for caption in SHOWCASE} == {"train"}
    assert split_by_caption(HELD_OUT) == "held-out"


def test_another_package_is_refused(styles: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "iconify-json-noto-1.0.0.tgz").write_bytes(b"another")
    with pytest.raises(UserError, match="not the published package"):
        list(styles.all_styles(tmp_path, 16))
    (tmp_path / "iconify-json-noto-1.0.0.tgz").unlink()
    with pytest.raises(UserError, match="is missing"):
        list(styles.all_styles(tmp_path, 16))


def test_photographs_are_taken_whole_and_in_pieces_on_the_side_that_training_puts_them(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    draw, contents = np.random.default_rng(0), {}
    with tarfile.open(tmp_path / "photos.tar", "w") as packed:
        for k in range(30):
            buffer = io.BytesIO()
            side = 128 if k else 150
            Image.fromarray(draw.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
            member = tarfile.TarInfo(f"sea/{k}.png" if k % 2 else f"{k}.png")
            member.size = len(buffer.getvalue())
            packed.addfile(member, io.BytesIO(buffer.getvalue()))
            contents[member.name.replace("/", "-")] = buffer.getvalue()
    for part in ("train", "test"):
        (tmp_path / "styles" / part).mkdir(parents=True)
        (tmp_path / "styles" / part / f"emoji-{part}.png").write_bytes(contents["0.png"])
    counts = script("vae_pictures").write(tmp_path / "styles", tmp_path / "photos.tar", tmp_path / "out")
    split = held_out_split([sha256(content).hexdigest() for content in contents.values()], [None] * 30)
    assert 0 < split.count("held-out") < 30
    assert counts == {"train": 1 + 3 * split.count("train"), "test": 1 + 3 * split.count("held-out")}
    for (name, content), side in zip(contents.items(), split):
        part, stem = "train" if side == "train" else "test", Path(name).stem
        assert (tmp_path / "out" / part / f"land-{stem}.png").is_file()
        if stem == "0":
            continue
        whole = np.asarray(Image.open(io.BytesIO(content)))
        places = np.lib.stride_tricks.sliding_window_view(whole, (64, 64, 3))[:, :, 0]
        for piece in range(2):
            cut = np.asarray(Image.open(tmp_path / "out" / part / f"crop-{stem}-{piece}.png"))
            corner = (places[:, :, 0, 0] == cut[0, 0]).all(axis=-1)
            assert any((places[y, x] == cut).all() for y, x in zip(*corner.nonzero()))
