"""Spoilt checkpoints of a small real stage: each is refused by name, or an older whole one is taken in its place.

    python benchmarks/mutated_checkpoints.py [--mutations 10000] [--seed 0]

Cuts, flips, overwrites, zeroes, appends to, deletes and exchanges files and whole folders, among steps, stages and
runs. A load that returns must return, to the bit, what was saved at the step it claims, by this run and stage; and if
one checkpoint is still as it was written, a load must return. Prints one JSON object; exit 1 on a silent load, on a
whole checkpoint passed over, or on any exception but CorruptFileError.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from calotype.core.errors import CorruptFileError
from calotype.core.files import MANIFEST
from calotype.core.progress import Silent
from calotype.training.checkpoint import (
    Checkpoint,
    Retention,
    best_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

Chance = random.Random
STEPS = (3, 6, 9)
OURS = "ours denoiser"
BEST = ("validation", "min")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = trial(Path(folder), options.mutations, options.seed)
    print(json.dumps(result, indent=2))
    return int(bool(result["silent"] or result["lost"] or result["crashes"]))


def trial(folder: Path, mutations: int, seed: int) -> dict[str, object]:
    """Spoil a copy of the checkpoints `mutations` times over, one to three times each, and look what loads."""
    runs = Runs(folder)
    outcomes: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {name: Counter() for name in MUTATIONS}
    faults: dict[str, list[str]] = {"silent": [], "lost": [], "crashes": []}
    started = time.monotonic()
    for k in range(mutations):
        chance = Chance(f"{seed} {k}")
        stage = runs.fresh()
        kinds = [chance.choice([*MUTATIONS]) for _ in range(chance.choice((1, 1, 2, 3)))]
        for kind in kinds:
            MUTATIONS[kind](stage, runs, chance)
        outcome = runs.load(stage)
        name, _, detail = outcome.partition(": ")
        if name in faults:
            faults[name].append(f"mutation {k} ({', '.join(kinds)}): {detail}")
        outcomes[name] += 1
        for kind in kinds:
            by_kind[kind][name] += 1
    if runs.whole != runs.originals():
        raise RuntimeError("a mutation reached the originals: this trial proves nothing")
    return {
        "mutations": mutations,
        "outcomes": outcomes,
        **{name: found[:20] for name, found in faults.items()},
        "by_kind": by_kind,
        "seconds": round(time.monotonic() - started, 1),
    }


class Runs:
    """Two runs of two stages, as they were saved, and a working copy of one stage to spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work" / "denoiser"
        self.saved: dict[tuple[str, int], tuple[object, ...]] = {}
        for run in ("ours", "other"):
            for stage in ("denoiser", "vae"):
                for checkpoint in train(f"{run} {stage}"):
                    save_checkpoint(folder / run / stage, checkpoint, Retention(len(STEPS)))
                    self.saved[checkpoint.identity, checkpoint.step] = content(checkpoint)
        self.stage = folder / "ours" / "denoiser"
        self.whole = self.originals()

    def originals(self) -> dict[str, dict[str, bytes | None]]:
        return {one.name: fingerprint(one) for one in self.stage.iterdir()}

    def fresh(self) -> Path:
        """The working copy, as it was saved."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.stage, self.work)
        return self.work

    def elsewhere(self, chance: Chance) -> Path:
        """A checkpoint of another run or stage."""
        run, stage = chance.choice((("ours", "vae"), ("other", "denoiser"), ("other", "vae")))
        return self.folder / run / stage / step_name(chance.choice(STEPS))

    def load(self, stage: Path) -> str:
        """What resuming from `stage`, and reading each of its folders, comes to."""
        intact = [name for name in self.whole if fingerprint(stage / name) == self.whole[name]]
        try:
            for name in sorted({one.name for one in stage.glob("step-*")} | {step_name(step) for step in STEPS}):
                try:
                    found = read_checkpoint(stage / name)
                except CorruptFileError:
                    if name in intact:
                        return f"lost: {name} is whole and does not load"
                    continue
                if not self.is_as_saved(found, name):
                    return f"silent: {name} loads as step {found.step} of {found.identity}"
            best_checkpoint(stage, BEST, OURS)
            folder = newest_checkpoint(stage, Silent(), OURS)
            if folder is None:
                return f"lost: {intact} are whole" if intact else "refused"
            found = read_checkpoint(folder)
        except Exception:
            return f"crashes: {traceback.format_exc(limit=-2)}"
        if found.identity != OURS or not self.is_as_saved(found, folder.name):
            return f"silent: {folder.name} is taken up"
        if intact and found.step < max(int(name[5:]) for name in intact):
            return f"lost: {folder.name} is taken up, {intact} are whole"
        return "the newest" if found.step == max(STEPS) else "an older one"

    def is_as_saved(self, found: Checkpoint, name: str) -> bool:
        return name == step_name(found.step) and content(found) == self.saved.get((found.identity, found.step))


def train(identity: str) -> list[Checkpoint]:
    """The checkpoints of a few steps of a small network."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]))
    network = nn.Sequential(nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 3))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    made = []
    for step in range(1, max(STEPS) + 1):
        loss = network(torch.randn(8, 6)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in STEPS:
            parts = {
                "network": {name: value.detach().clone() for name, value in network.state_dict().items()},
                "optimizer": {
                    f"{number}/{key}": value.clone()
                    for number, entries in optimizer.state_dict()["state"].items()
                    for key, value in entries.items()
                },
            }
            state = {"spent": step / 7, "metrics": {"sums": {"loss": float(loss.detach())}, "counts": {"loss": 1}}}
            made.append(Checkpoint(step, parts, state, identity, {BEST[0]: float(loss.detach())}))
    return made


def content(checkpoint: Checkpoint) -> tuple[object, ...]:
    """All of a checkpoint, to compare to the bit."""

    def bits(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
        return str(tensor.dtype), tuple(tensor.shape), tensor.flatten().view(torch.uint8).numpy().tobytes()

    tensors = {stem: {name: bits(tensor) for name, tensor in part.items()} for stem, part in checkpoint.tensors.items()}
    return checkpoint.step, checkpoint.identity, checkpoint.state, checkpoint.measures, tensors


def fingerprint(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes; None for what is no file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def step_name(step: int) -> str:
    return f"step-{step:08d}"


# Mutations: each spoils something in `stage`, and may leave it as it was (a swap with itself, an empty file cut).


def _file(stage: Path, chance: Chance) -> Path | None:
    """Some file of some step; the newest most often, so that there is something to fall back to."""
    found = sorted(path for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
    late = [path for path in found if path.parent.name == step_name(max(STEPS))]
    return chance.choice(late if late and chance.random() < 0.6 else found) if found else None


def _edit(change: Callable[[bytearray, Chance], bytes | bytearray]) -> Callable[[Path, Runs, Chance], None]:
    """A mutation of one file's bytes."""

    def mutate(stage: Path, runs: Runs, chance: Chance) -> None:
        if (path := _file(stage, chance)) is not None:
            path.write_bytes(change(bytearray(path.read_bytes()), chance))

    return mutate


def _cut(content: bytearray, chance: Chance) -> bytearray:
    return content[: chance.randrange(len(content) or 1)]


def _cut_a_byte(content: bytearray, chance: Chance) -> bytearray:
    return content[: -chance.randint(1, 4)]


def _flip(content: bytearray, chance: Chance) -> bytearray:
    for _ in range(chance.choice((1, 1, 1, 8))):
        if content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def _overwrite(content: bytearray, chance: Chance) -> bytearray:
    start, length = _span(content, chance)
    content[start : start + length] = chance.randbytes(length)
    return content


def _zero(content: bytearray, chance: Chance) -> bytearray:
    """A block that never reached the disk."""
    start, length = _span(content, chance)
    content[start : start + length] = bytes(length)
    return content


def _span(content: bytearray, chance: Chance) -> tuple[int, int]:
    start = chance.randrange(len(content) or 1)
    return start, min(chance.choice((1, 4, 64, 512, len(content))), len(content) - start)


def _append(content: bytearray, chance: Chance) -> bytearray:
    return content + chance.choice((b"\n", b" ", b"\0", chance.randbytes(9), bytes(content)))


def _drop_a_piece(content: bytearray, chance: Chance) -> bytearray:
    start, length = _span(content, chance)
    del content[start : start + length]
    return content


def _delete(stage: Path, runs: Runs, chance: Chance) -> None:
    if (path := _file(stage, chance)) is not None:
        path.unlink()


def _put(source: Path, target: Path) -> None:
    """Copy one file to where another is, not through a link."""
    if source.is_file() and target.parent.is_dir() and not target.is_dir():
        target.unlink(missing_ok=True)
        shutil.copy(source, target)


def _file_of_another_step(stage: Path, runs: Runs, chance: Chance) -> None:
    if (path := _file(stage, chance)) is not None:
        _put(runs.stage / step_name(chance.choice(STEPS)) / path.name, path)


def _file_of_another_run(stage: Path, runs: Runs, chance: Chance) -> None:
    if (path := _file(stage, chance)) is not None:
        _put(runs.elsewhere(chance) / path.name, path)


def _manifest_of_another(stage: Path, runs: Runs, chance: Chance) -> None:
    source = chance.choice((runs.stage / step_name(chance.choice(STEPS)), runs.elsewhere(chance)))
    _put(source / MANIFEST, stage / step_name(chance.choice(STEPS)) / MANIFEST)


def _swap_folders(stage: Path, runs: Runs, chance: Chance) -> None:
    one, other = (stage / step_name(step) for step in chance.sample(STEPS, 2))
    if one.exists() and other.exists():
        os.rename(one, stage / "aside")
        os.rename(other, one)
        os.rename(stage / "aside", other)


def _folder_of_another_step(stage: Path, runs: Runs, chance: Chance) -> None:
    target = stage / step_name(chance.choice((*STEPS, 12, 999_999)))
    _replace(target, runs.stage / step_name(chance.choice(STEPS)))


def _folder_of_another_run(stage: Path, runs: Runs, chance: Chance) -> None:
    source = runs.elsewhere(chance)
    _replace(stage / chance.choice((source.name, source.name, step_name(12))), source)


def _replace(target: Path, source: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    shutil.copytree(source, target)


def _link(stage: Path, runs: Runs, chance: Chance) -> None:
    """A link to nothing, to itself, to a folder, or to a file of another step, which is there."""
    if (path := _file(stage, chance)) is not None:
        path.unlink()
        others = (Path("nowhere"), path, stage, runs.stage / step_name(chance.choice(STEPS)) / path.name)
        path.symlink_to(chance.choice(others))


def _folder_for_file(stage: Path, runs: Runs, chance: Chance) -> None:
    if (path := _file(stage, chance)) is not None:
        path.unlink()
        path.mkdir()


def _file_for_folder(stage: Path, runs: Runs, chance: Chance) -> None:
    target = stage / step_name(chance.choice((*STEPS, 12)))
    if target.is_dir():
        shutil.rmtree(target)
    target.write_bytes(chance.randbytes(8))


def _one_more(stage: Path, runs: Runs, chance: Chance) -> None:
    """A file that the manifest does not list."""
    if (path := _file(stage, chance)) is not None:
        _put(path, path.with_name(chance.choice(("averages.safetensors", "state.json.bak", "x.tmp"))))


def _rename_file(stage: Path, runs: Runs, chance: Chance) -> None:
    """A file under another's name."""
    if (path := _file(stage, chance)) is not None:
        target = path.with_name(chance.choice(("network.safetensors", "optimizer.safetensors", "ema.safetensors")))
        if not target.is_dir():
            os.replace(path, target)


def _empty_folder(stage: Path, runs: Runs, chance: Chance) -> None:
    target = stage / step_name(chance.choice((*STEPS, 12)))
    if not target.is_file():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()


MUTATIONS: dict[str, Callable[[Path, Runs, Chance], None]] = {
    "cut": _edit(_cut),
    "cut a byte": _edit(_cut_a_byte),
    "flip": _edit(_flip),
    "overwrite": _edit(_overwrite),
    "zero": _edit(_zero),
    "append": _edit(_append),
    "drop a piece": _edit(_drop_a_piece),
    "delete": _delete,
    "file of another step": _file_of_another_step,
    "file of another run": _file_of_another_run,
    "manifest of another": _manifest_of_another,
    "swap folders": _swap_folders,
    "folder of another step": _folder_of_another_step,
    "folder of another run": _folder_of_another_run,
    "link": _link,
    "folder for file": _folder_for_file,
    "file for folder": _file_for_folder,
    "one more": _one_more,
    "rename file": _rename_file,
    "empty folder": _empty_folder,
}

if __name__ == "__main__":
    sys.exit(main())
