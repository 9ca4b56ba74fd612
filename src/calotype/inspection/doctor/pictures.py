"""The pictures themselves: files that cannot be read, copies, too few of them, nothing in them."""

from __future__ import annotations

from collections.abc import Iterator

from calotype.core.files import read_lines
from calotype.images.dataset import QUARANTINE
from calotype.images.quarantine import group_reasons
from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown
from calotype.inspection.doctor.finding import Finding
from calotype.latents.health_kept import picture_spread
from calotype.latents.health_measures import spread_evenly

FEW = 50  # training pictures below which a model can but learn them by heart
REFUSED, COPIES, FLAT, ENLARGED = 0.02, 0.02, 0.1, 0.1
LOOKED_AT = 1024


def check_refused(evidence: Evidence) -> Iterator[Finding]:
    """Files that cannot be read."""
    pictures, facts = evidence.pictures, evidence.data_facts
    total = facts["files"] + facts["dropped"] + pictures.refused
    if pictures.refused > max(1, REFUSED * total) or (pictures.refused and total < 1 / REFUSED):
        groups = group_reasons(list(read_lines(evidence.data_folder / QUARANTINE)))
        reasons = "; ".join(group.line for group in groups[:3])
        what = f"{pictures.refused:,} of {total:,} files cannot be read ({reasons})"
        remedy = f"mend or remove them: calotype data {evidence.data_words} lists them all"
        yield Finding("refused-files", "warning", what, remedy, {"refused": pictures.refused, "files": total})


def check_copies(evidence: Evidence) -> Iterator[Finding]:
    """Pictures that are there more than once."""
    pictures, facts = evidence.pictures, evidence.data_facts
    kept = pictures.equal_copies + pictures.near_copies - pictures.dropped
    if kept > COPIES * facts["files"]:
        which = "drop-near" if pictures.near_copies else "drop-exact"
        what = (
            f"{kept:,} of {facts['files']:,} pictures are copies of others ({pictures.equal_copies:,} by their bytes, "
            f"{pictures.near_copies:,} by their looks): they weigh double and are learnt by heart first"
        )
        remedy = f"train in a new --out with --set data.duplicates={which}"
        figures = {"copies": kept, "across_split": facts["copies_across_split"]}
        yield Finding("duplicates", "warning", what, remedy, figures)


def check_amount(evidence: Evidence) -> Iterator[Finding]:
    """Enough pictures to learn a kind of picture from."""
    count = len(evidence.pictures.train_ids)
    if count < FEW:
        what = f"{count} pictures to train on are too few: a model can but learn them by heart"
        remedy = "add pictures of the same kind, some hundreds at least; or fine-tune a model: --from MODEL"
        yield Finding("too-little-data", "warning", what, remedy, {"train": count})


def check_content(evidence: Evidence) -> Iterator[Finding]:
    """Pictures with something in them."""
    pictures = evidence.pictures
    ids = spread_evenly(pictures.train_ids, LOOKED_AT)
    if len(ids) < 2:
        raise Unknown
    flat, spread = picture_spread(pictures, ids)
    if flat > FLAT or spread < 0.02:
        what = f"{flat:.0%} of the pictures are one flat colour" if flat > FLAT else "all pictures are nearly the same"
        remedy = f"look at them: calotype data {evidence.data_words} draws a contact sheet"
        yield Finding("flat-pictures", "warning", what, remedy, {"flat": flat, "spread": spread})


def check_size(evidence: Evidence) -> Iterator[Finding]:
    """Originals at least as large as what is learned."""
    originals, files = evidence.data_facts["originals"], evidence.data_facts["files"]
    smaller = int(originals.get("smaller", 0))
    if smaller > ENLARGED * files:
        size = evidence.pictures.size
        what = (
            f"{smaller:,} of {files:,} files are smaller than {size} px and were enlarged: the model learns their blur"
        )
        low = max((side for side in (32, 64, 128, 256) if side < size), default=size)
        yield Finding("enlarged", "warning", what, f"use larger originals, or --size {low}", {"smaller": smaller})


CHECKS: Checks = {
    "refused-files": check_refused,
    "duplicates": check_copies,
    "amount": check_amount,
    "content": check_content,
    "originals": check_size,
}
