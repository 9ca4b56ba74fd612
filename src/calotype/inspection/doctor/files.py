"""Whether a run's or a model's files are whole, belong together, and have room to be written again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from calotype.core.errors import CorruptFileError
from calotype.core.files import read_json, sha256, verify_folder
from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown
from calotype.inspection.doctor.finding import Finding

ROOM = 4  # checkpoints' worth of disk that a training should find


def check_config(evidence: Evidence) -> Iterator[Finding]:
    """config.yaml says what the run is."""
    try:
        _ = evidence.run.recipe
    except CorruptFileError as error:
        yield Finding("corrupt-config", "fault", error.what, error.mend)


def check_journal(evidence: Evidence) -> Iterator[Finding]:
    """journal.jsonl says which steps the run takes."""
    try:
        _ = evidence.journal
    except CorruptFileError as error:
        yield Finding("corrupt-journal", "fault", error.what, error.mend)


def check_checkpoints(evidence: Evidence) -> Iterator[Finding]:
    """Every checkpoint of both stages, to the byte."""
    for stage in ("vae", "denoiser"):
        folders = sorted((evidence.run.folder / stage).glob("step-*"))
        damaged = {}
        for folder in folders:
            try:
                verify_folder(folder, sealed=True)
            except CorruptFileError as error:
                if folder.exists():  # a training that is under way drops old ones
                    damaged[folder.name] = error.what
        if damaged:
            whole = len(folders) - len(damaged)
            name, reason = next(iter(damaged.items()))
            what = f"{len(damaged)} of {len(folders)} checkpoints of the {stage} are damaged ({reason})"
            older = f"remove it: rm -r {evidence.name}/{stage}/{name}; the one before it is used then"
            anew = f"restore it, or train the {stage} anew: rm -r {evidence.name}/{stage}"
            yield Finding("corrupt-checkpoint", "fault", what, older if whole else anew, {"damaged": damaged})


def check_pictures(evidence: Evidence) -> Iterator[Finding]:
    """The prepared pictures are there and are those of the index."""
    if not evidence.run.journal.exists():
        raise Unknown
    try:
        _ = evidence.pictures
    except Unknown:
        what = f"the run's pictures ({evidence.run.data}) are not whole, or of an older calotype"
        remedy = f"the same command takes them in again: {evidence.again}"
        yield Finding("corrupt-data", "fault", what, remedy)


def check_shards(evidence: Evidence) -> Iterator[Finding]:
    """Cached latents and captions, whose files are named by what is in them."""
    for kind, folder in (("latents", evidence.run.latents), ("captions", evidence.run.captions)):
        shards = sorted(folder.glob("*/[0-9a-f]*.safetensors"))
        damaged = [path.name for path in shards if path.exists() and sha256(path) != path.stem]
        if damaged:
            what = f"{len(damaged)} of {len(shards)} files of cached {kind} are damaged ({damaged[0][:12]}...)"
            remedy = f"rm -r {evidence.name}/{kind}, then give the same command again: {_command(evidence)}"
            yield Finding(f"corrupt-{kind}", "fault", what, remedy, {"damaged": damaged})


def check_bundle(evidence: Evidence) -> Iterator[Finding]:
    """The bundle is whole, to the byte."""
    folder = evidence.path if evidence.kind == "model" else evidence.run.model
    if not (folder / "manifest.json").exists():
        raise Unknown
    try:
        verify_folder(folder)
    except CorruptFileError as error:
        again = "restore it, or get the model anew"
        if evidence.kind == "run":
            again = f"rm -r {evidence.name}/model, then give the same command again: {_command(evidence)}"
        yield Finding("corrupt-bundle", "fault", error.what, again)


def check_finished(evidence: Evidence) -> Iterator[Finding]:
    """All steps asked for are taken, and the bundle is of the last of them."""
    if evidence.running:
        raise Unknown  # it is on its way
    done, end = evidence.steps("denoiser"), evidence.segment("denoiser").end if _planned(evidence) else None
    command = _command(evidence)
    if end is None or done < end:
        stage = "denoiser" if _planned(evidence) else "VAE"
        reached = f"step {done:,}" + (f" of {end:,}" if end is not None else "")
        what = f"the run stopped in its {stage}" + (f", at {reached}" if _planned(evidence) else "")
        yield Finding("unfinished", "warning", what, f"continue it: {command}", {"step": done, "end": end})
        return
    model = evidence.run.model / "model.json"
    if not model.is_file():
        what = "training is done, but the run has no bundle"
        yield Finding("missing-bundle", "warning", what, f"write it: {command}", {"step": done})
        return
    facts = read_json(model).get("facts", {})
    held = facts.get("denoiser_steps")
    if held != done:
        what = f"the bundle is of step {held}, the denoiser is at step {done:,}"
        yield Finding("stale-bundle", "warning", what, f"write it anew: {command}", {"bundle": held, "run": done})


def _command(evidence: Evidence) -> str:
    """The command that continues the run as it was last asked for."""
    return f"{evidence.again} {evidence.budget}"


def _planned(evidence: Evidence) -> bool:
    return bool(evidence.journal.segments("denoiser"))


def check_disk(evidence: Evidence) -> Iterator[Finding]:
    """Room on the disk for what training writes next."""
    folders = [path for stage in ("vae", "denoiser") for path in (evidence.run.folder / stage).glob("step-*")]
    largest = max((_size(folder) for folder in folders), default=0)
    free = shutil.disk_usage(evidence.run.folder).free
    if not largest:
        raise Unknown
    if free < ROOM * largest:
        what = f"{free / 1e6:,.0f} MB of disk are free, and a checkpoint takes {largest / 1e6:,.0f} MB"
        fewer = f"free some, or keep fewer: {evidence.again} {evidence.budget} --set training.keep=1"
        yield Finding("disk", "warning", what, fewer, {"free": free, "checkpoint": largest})


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0


CHECKS: Checks = {
    "config": check_config,
    "journal": check_journal,
    "checkpoints": check_checkpoints,
    "pictures": check_pictures,
    "caches": check_shards,
    "bundle": check_bundle,
    "finished": check_finished,
    "disk": check_disk,
}
