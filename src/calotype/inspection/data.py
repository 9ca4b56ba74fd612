"""A set of pictures looked at before training on it: figures, a contact sheet, and what to mend."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.core.files import read_lines, write_bytes, write_json
from calotype.core.progress import Reporter, Silent
from calotype.images.dataset import DUPLICATES, QUARANTINE, PictureSet, prepare
from calotype.images.grid import plot_images, save_png
from calotype.images.quarantine import group_reasons
from calotype.images.settings import PictureConfig
from calotype.images.sizing import natural_size
from calotype.images.source import open_source
from calotype.images.survey import survey
from calotype.inspection.data_verdict import good_for, to_mend

SHOWN = 64  # pictures on the contact sheet
_SIDE = 96  # at least, of a picture on it
_ASIDE = ".pixels-"
_SHEET, _SURVEY = "contact-sheet.png", "survey.json"


class _Settings(Config):
    data: PictureConfig = PictureConfig()


class _ProgressOnly(Silent):
    """Hands on how far the work is; what else there is to say stands in the survey."""

    def __init__(self, reporter: Reporter) -> None:
        self.stage = reporter.stage  # type: ignore[method-assign]
        self.update = reporter.update  # type: ignore[method-assign]


def look_at(
    data: str | Path,
    *,
    size: int | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Survey `data` as training would take it in; returns the figures, with the `verdict`, and writes them to `out`.

    `out` (default runs/data-NAME) then holds contact-sheet.png, survey.json, quarantine.jsonl and duplicates.jsonl.
    Raises UserError when there is nothing to look at.
    """
    config = _Settings().with_overrides(list(overrides)).data
    size = natural_size(data) if size is None else size
    source = open_source(data, size=size)
    out = out or Path("runs") / f"data-{_name(data)}"
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_ASIDE}*"):  # of a survey that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=out) as aside:
        folder = Path(aside)
        progress = _ProgressOnly(reporter or Silent())
        lenient = config.model_copy(update={"max_refused": 1.0})
        try:
            pictures = prepare(source, size, folder, progress, lenient, least=1)
        except UserError:
            if (folder / QUARANTINE).exists() and not any(read_lines(folder / DUPLICATES)):
                raise _nothing_readable(source.name, folder, out) from None
            raise
        reporter = reporter or Silent()
        reporter.stage("survey", f"{len(pictures):,} pictures")
        found = survey(pictures, folder) | {"notes": list(source.notes)}
        for name in (QUARANTINE, DUPLICATES):
            write_bytes(out / name, (folder / name).read_bytes())
        save_png(contact_sheet(pictures), out / _SHEET)
        del pictures  # its rows are mapped from the folder that goes now
    found["verdict"] = {"good_for": good_for(found), "mend": [asdict(advice) for advice in to_mend(found, config)]}
    words = [f"calotype train {shlex.quote(str(data))} --size {size}", *map(shlex.quote, overrides)]
    found["train"] = " --set ".join(words)
    found["files_written"] = {name: str(out / name) for name in (_SHEET, _SURVEY, QUARANTINE, DUPLICATES)}
    write_json(out / _SURVEY, found)
    return found


def _name(data: str | Path) -> str:
    """A word for the data that a folder can be called."""
    return re.sub(r"[^\w.-]+", "-", Path(data).absolute().stem).strip("-.") or "here"


def contact_sheet(pictures: PictureSet) -> Image.Image:
    """Up to 64 pictures, evenly chosen, with their caption, class or name."""
    firsts = [row for row, crop in enumerate(pictures.crops) if crop == 0]
    step = max(1, -(-len(firsts) // SHOWN))
    rows = firsts[::step]
    captions = [pictures.captions[row] or pictures.labels[row] or pictures.names[row] for row in rows]
    squares = [
        Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in pictures.pixels[torch.tensor(rows)].unbind()
    ]
    if pictures.size > 2 * _SIDE:
        squares = [square.resize((2 * _SIDE, 2 * _SIDE), Image.Resampling.BICUBIC) for square in squares]
    return plot_images(squares, columns=8, captions=captions, pad=4, scale=max(1, -(-_SIDE // pictures.size)))


def _nothing_readable(name: str, folder: Path, out: Path) -> UserError:
    shutil.copyfile(folder / QUARANTINE, out / QUARANTINE)
    refused = list(read_lines(out / QUARANTINE))
    reasons = "; ".join(group.line for group in group_reasons(refused)[:3])
    what = f"{name}: none of {len(refused):,} files can be read ({reasons})"
    return UserError(what, f"all are listed in {out / QUARANTINE}")


def describe(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The survey as (heading, text), a line or paragraph each; an empty pair is a gap."""
    files, originals, split = found["files"], found["originals"], found["split"]
    lines = [("pictures", f"{found['pictures']:,} of {found['size']} px, from {found['source']}")]
    if found["licence"] or found["attribution"]:
        lines.append(("origin", "; ".join(filter(None, (found["attribution"], found["licence"])))))
    lines += [("note", note) for note in found["notes"]]
    lines.append(("files", f"{files['readable']:,} readable, {files['refused']:,} refused"))
    lines += [("", f"{group['count']:,}: {group['reason']} ({group['example']})") for group in found["refused"][:6]]
    lines += [
        (
            "formats",
            _counts(originals["formats"]) + (f"; {originals['animated']:,} animated" * bool(originals["animated"])),
        ),
        ("colours", _counts(originals["modes"])),
        ("originals", _originals(originals)),
        ("classes", _classes(found["classes"])),
        ("captions", _captions(found["captions"])),
    ]
    words = found["captions"].get("frequent_words")
    if words:
        lines.append(("", f"often: {_counts(words)}"))
    lines += [
        ("copies", _copies(found["copies"])),
        ("looks", _looks(found)),
        ("split", f"{split['train']:,} to train on, {split['held_out']:,} held out"),
        ("mirrored", f"no: {found['mirrored']['reason']}" if found["mirrored"]["reason"] else "yes"),
        ("", ""),
        ("good for", found["verdict"]["good_for"]),
    ]
    mend = found["verdict"]["mend"]
    lines += [
        ("to mend" if place == 0 else "", f"{each['what']}\n> {each['action']}") for place, each in enumerate(mend)
    ]
    if not mend:
        lines.append(("to mend", "nothing that a look at the figures shows; look at the contact sheet"))
    return lines


def _counts(counts: Mapping[str, int], most: int = 12) -> str:
    """'JPEG 9,990, PNG 10'."""
    told = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    return ", ".join(told) + (f" and {len(counts) - most:,} more" if len(counts) > most else "")


def _originals(originals: Mapping[str, Any]) -> str:
    width, height, shorter = originals["width"], originals["height"], originals["shorter_side"]
    if width["min"] == width["max"] and height["min"] == height["max"]:
        return f"all {width['min']:,} x {height['min']:,} px"
    return (
        f"shorter side {shorter['min']:,} to {shorter['max']:,} px, half of them at least {shorter['median']:,}; "
        f"{originals['smaller']:,} smaller than asked, {originals['elongated']:,} twice as long as wide"
    )


def _classes(classes: Mapping[str, Any]) -> str:
    if not classes["count"]:
        return "none"
    counts = list(classes["pictures"].values())
    ratio = f"; the largest has {counts[0] / counts[-1]:.1f} times the smallest" if len(counts) > 1 else ""
    missing = f"; {classes['unlabelled']:,} without" if classes["unlabelled"] else ""
    return f"{classes['count']:,}: {_counts(classes['pictures'])}{ratio}{missing}"


def _captions(captions: Mapping[str, Any]) -> str:
    if not captions["count"]:
        return "none"
    missing = f", {captions['missing']:,} pictures without" if captions["missing"] else ""
    words = f"{captions['words_median']} words each, at most {captions['words_max']}"
    return f"{captions['count']:,}, {captions['distinct']:,} of them different{missing}; {words}"


def _copies(copies: Mapping[str, Any]) -> str:
    told = f"{copies['equal']:,} of the same bytes, {copies['near']:,} that look alike"
    if copies["dropped"]:
        told += f"; {copies['dropped']:,} left out"
    if copies["across_split"]:
        told += f"; {copies['across_split']:,} across the split"
    if copies["examples"]:
        told += " ({} is like {})".format(*copies["examples"][0])
    return told


def _looks(found: Mapping[str, Any]) -> str:
    colour, total = found["colour"], found["pictures"]
    mean, std = (" ".join(f"{value:.0f}" for value in colour[key]) for key in ("mean", "std"))
    shares = ", ".join(
        f"{100 * colour[kind] / total:.3g} % {word}"
        for kind, word in (("grey", "grey"), ("dark", "nearly black"), ("light", "nearly white"), ("flat", "one shade"))
    )
    return f"mean {mean} (red green blue, of 255), deviation {std}; {shares}"
