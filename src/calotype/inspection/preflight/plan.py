"""`calotype plan`: what a run will take in time, memory and disk, measured on a sample before anything long starts."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.images.source import open_source, source_name
from calotype.inspection.data_verdict import Advice
from calotype.inspection.preflight.costs import TooLargeError
from calotype.inspection.preflight.listing import Listing
from calotype.inspection.preflight.rehearsal import Rehearsal
from calotype.inspection.preflight.resources import bounded, room
from calotype.inspection.preflight.verdict import foreseen
from calotype.pipeline.run import Run
from calotype.pipeline.training import DEFAULT_MINUTES, full_settings, sized
from calotype.training.journal import Budget
from calotype.training.settings import check_decay
from calotype.training.signals import sigterm_as_ctrl_c

BUSY = 0.5  # processes a core, on average over the last minute, beside which times mean little


def plan(
    data: str | Path,
    *,
    recipe: str = "calotype",
    out: Path | None = None,
    size: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measure every part of the run that `pipeline.train` would do with these arguments; returns what it will take.

    Leaves nothing behind. Raises UserError for what training would refuse.
    """
    started, reporter, others = time.monotonic(), reporter or Silent(), os.getloadavg()[0]
    if not distributed.leads():
        raise UserError("a plan is made by one process", "start it without torchrun")
    budget = Budget(steps=steps) if steps is not None else Budget(minutes=minutes or DEFAULT_MINUTES)
    chosen = choose_device(device)
    place = (out or Path("runs") / "run").absolute()
    near = next(folder for folder in (place, *place.parents) if folder.is_dir())  # it may be a disk of its own
    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix=".calotype-plan-", dir=near) as aside, bounded(chosen):
        none = Run(Path(aside) / "none")
        size, opened = sized(none, data) if size is None else (size, data)
        asked = full_settings(none, recipe, size, seed, overrides, None)
        for name, config in (("vae.training", asked.vae.training), ("training", asked.training)):
            check_decay(name, config, timed=steps is None)
        limit = room(chosen)
        source = open_source(opened, size=size)
        rehearsal = Rehearsal(Path(aside), Listing(source), asked, chosen, reporter, budget)
        for note in source.notes:
            reporter.warn(note)
        found: dict[str, Any] = {
            "data": source_name(data),
            "recipe": recipe,
            "size": size,
            "files": rehearsal.listing.total,
            "device": str(chosen),
            "threads": torch.get_num_threads(),
            "budget": str(budget),
        }
        advice: list[Advice] = []
        try:
            found |= foreseen(rehearsal, rehearsal.parts(), budget, limit, shutil.disk_usage(near).free, advice)
            fits = found["memory"]["fits"] is not False and found["disk"]["fits"]
        except TooLargeError as error:
            fits = False
            advice.append(Advice(f"memory does not suffice for {error.what}", "choose a smaller --size or network"))
    if others > BUSY * (os.cpu_count() or 1):
        what = f"{others:.1f} other processes were at work here: a quiet machine takes less time"
        advice.append(Advice(what, "plan again when they are done"))
    settings = [each.action for each in advice if each.action.startswith("--set ")]
    verdict = ("fits with the settings below" if settings else "fits") if fits else "does not fit"
    if fits and found["stops"]:
        verdict = "fits, but training would stop at the files that cannot be read"
    words = [f"calotype train {shlex.quote(str(data))} --recipe {recipe} --size {size} {budget}"]
    words += [f"--out {shlex.quote(str(out))}"] * (out is not None)
    words += [f"--seed {seed}"] * (seed != 0) + [f"--device {device}"] * (device != "auto")
    words += [f"--set {shlex.quote(setting)}" for setting in overrides] + settings
    found |= {"verdict": verdict, "mend": [asdict(each) for each in advice], "train": " ".join(words)}
    return found | {"plan_seconds": round(time.monotonic() - started, 1)}
