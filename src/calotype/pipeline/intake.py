"""What a run learns from: its pictures, decoded once and fixed, and what they decide about the settings."""

from __future__ import annotations

import shlex
from pathlib import Path

from calotype.core import distributed
from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_lines
from calotype.core.progress import Reporter
from calotype.images.dataset import PictureSet, load_prepared, prepare
from calotype.images.mirroring import mirror_matters
from calotype.images.source import Data, is_elsewhere, open_source, source_name
from calotype.pipeline.run import Run
from calotype.recipes import Recipe


def take_in(run: Run, recipe: Recipe, data: Data, reporter: Reporter) -> PictureSet:
    """Decode the data once into the run; a run that has its pictures keeps them, and says if the data has changed."""
    pictures = load_prepared(run.data)
    if pictures is None and distributed.rank() > 0:
        raise CorruptFileError(
            f"{run.data} cannot be seen by process {distributed.rank()}",
            "give every machine the same --out, on a disk that all of them share",
        )
    if pictures is None:
        if run.journal.exists():
            reporter.warn(
                f"{run.data} is not whole, or of an older calotype: the pictures are taken in again, as the data is now"
            )
        reporter.stage("pictures", source_name(data))
        pictures = prepare(open_source(data, size=recipe.size), recipe.size, run.data, reporter, recipe.data)
    elif distributed.rank() == 0 and (changed := _changes(run, recipe, data, pictures)):
        reporter.say(
            f"{changed} since this run began, which keeps the pictures it began with; to learn the new ones too: "
            f"calotype train {_word(source_name(data))} --size {pictures.size} "
            f"--from {_word(run.folder)} --out {_word(f'{run.folder}-2')}"
        )
    held_out = len(pictures.held_out_ids)
    copies = f"; {pictures.copies}" if pictures.copies else ""
    reporter.say(f"{len(pictures):,} pictures of {pictures.size} px, {held_out:,} of them held out{copies}")
    return pictures


def _changes(run: Run, recipe: Recipe, data: Data, pictures: PictureSet) -> str:
    """In words, what was added to the data and what is gone, by name; empty where nothing was, or none can tell."""
    if is_elsewhere(data):
        return ""  # a hub's answer takes long, and may need a network that the run does not
    try:
        pictures_there = open_source(data, size=recipe.size).pictures
        there = {picture.name.encode(errors="replace").decode() for picture in pictures_there}  # as the index has them
    except (UserError, OSError):
        return ""  # the data may be gone by now: the run has what it needs
    left_out = [run.data / name for name in ("quarantine.jsonl", "duplicates.jsonl")]
    known = {*pictures.names, *(str(record.get("path")) for path in left_out for record in read_lines(path))}
    counts = (("added to", len(there - known)), ("removed from", len(known - there)))
    return " and ".join(f"{count:,} file{'s' * (count != 1)} {how} the data" for how, count in counts if count)


def _word(path: str | Path) -> str:
    return shlex.quote(str(path))


def mirrored(recipe: Recipe, pictures: PictureSet, reporter: Reporter) -> bool:
    """Whether the denoiser learns mirrored pictures too: as the recipe says, else unless left and right matter here."""
    if recipe.loss.flip is not None:
        return recipe.loss.flip
    reason = mirror_matters(pictures.captions, pictures.classes)
    if reason:
        reporter.say(f"pictures are not mirrored: {reason}")
    return not reason
