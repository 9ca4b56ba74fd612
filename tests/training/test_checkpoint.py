"""Checkpoints: what was saved comes back to the bit, or an older one does, or none; nothing else ever."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.files import MANIFEST, write_folder, write_json
from calotype.core.progress import Silent
from calotype.core.tensors import save_tensors
from calotype.training.checkpoint import (
    Checkpoint,
    Retention,
    best_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from tests.disk_faults import FAULTS, each_fault, each_kill


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Loud(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def checkpoint(step: int, *, identity: str = "mine", note: str = "", **measures: float) -> Checkpoint:
    """One whose tensors tell its step and note apart from any other's."""
    seed = torch.Generator().manual_seed(step + 1000 * len(note))
    tensors = {stem: {"weight": torch.randn(5, 3, generator=seed)} for stem in ("ema", "optimizer")}
    return Checkpoint(step, tensors, {"spent": step / 7, "note": note}, identity, measures)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Equal to the bit."""

    def flat(of: Checkpoint) -> dict[tuple[str, str], Tensor]:
        return {(stem, name): tensor for stem, part in of.tensors.items() for name, tensor in part.items()}

    ours, theirs = flat(one), flat(other)
    return (
        (one.step, one.state, one.identity, one.measures) == (other.step, other.state, other.identity, other.measures)
        and one.tensors.keys() == other.tensors.keys()
        and ours.keys() == theirs.keys()
        and all(_bits(ours[key]) == _bits(theirs[key]) for key in ours)
    )


def _bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def save(stage: Path, *steps: int, last: int = 9) -> None:
    for step in steps:
        save_checkpoint(stage, checkpoint(step), Retention(last))


def steps(stage: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in stage.glob("step-*"))


def newest(stage: Path, identity: str | None = "mine") -> Checkpoint | None:
    folder = newest_checkpoint(stage, Silent(), identity)
    return None if folder is None else read_checkpoint(folder)


def test_what_was_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    tensors = {
        "network": {f"{dtype}": torch.tensor([0.1, -2.5]).to(dtype) for dtype in (torch.bfloat16, torch.float16)},
        "ema": {"nan": torch.tensor([math.nan, -0.0, math.inf]), "turned": torch.arange(6.0).view(2, 3).T},
        "optimizer": {"step": torch.tensor(3.0), "none": torch.empty(0, 4), "long": torch.tensor([2**60])},
        "averages": {},
    }
    state = {"spent": 0.1 + 0.2, "metrics": {"sums": {"loss": 1e-300}}, "words": "pâle\n", "big": 2**70}
    saved = Checkpoint(12, tensors, state, "mine", {"validation": 1 / 3})
    folder = save_checkpoint(tmp_path / "denoiser", saved, Retention())
    assert folder == tmp_path / "denoiser" / "step-00000012" == newest_checkpoint(folder.parent, Silent(), "mine")
    assert same(read_checkpoint(folder), saved)


def test_a_state_may_not_pose_as_the_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step"):
        save_checkpoint(tmp_path, Checkpoint(1, {}, {"step": 2}), Retention())


def test_after_a_hundred_million_steps_the_newest_is_still_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 99_999_999, 100_000_000)
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 100_000_000


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(2), [4, 5]),
        (Retention(0), [5]),
        (Retention(2, (("loss", "min"),)), [2, 4, 5]),
        (Retention(1, (("loss", "max"),)), [1, 5]),
        (Retention(2, (("score", "max"),)), [4, 5]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path: Path, retention: Retention, kept: list[int]) -> None:
    """Not every one is measured, and what is not finite is never the best."""
    for step, loss in enumerate([4.0, 1.0, None, math.nan, 3.0], start=1):
        measures = {} if loss is None else {"loss": loss}
        save_checkpoint(tmp_path, checkpoint(step, **measures), retention)
    assert steps(tmp_path) == kept


def test_of_equals_the_newest_is_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step, loss=1.0), Retention(1, (("loss", "min"),)))
    assert steps(tmp_path) == [3]


def test_the_best_is_the_best_that_is_whole(tmp_path: Path) -> None:
    for step, loss in enumerate([3.0, 1.0, 2.0], start=1):
        save_checkpoint(tmp_path, checkpoint(step, loss=loss), Retention())
    save_checkpoint(tmp_path, checkpoint(4, identity="other", loss=0.5), Retention())
    assert best_checkpoint(tmp_path, ("loss", "min")) == tmp_path / "step-00000004"
    assert best_checkpoint(tmp_path, ("loss", "min"), "mine") == tmp_path / "step-00000002"
    (tmp_path / "step-00000002" / "ema.safetensors").unlink()
    assert best_checkpoint(tmp_path, ("loss", "min"), "mine") == tmp_path / "step-00000003"
    assert best_checkpoint(tmp_path, ("loss", "max")) == tmp_path / "step-00000001"
    assert best_checkpoint(tmp_path, ("score", "max")) is None


def test_going_back_drops_the_later_ones(tmp_path: Path) -> None:
    """Else a kill would continue the future that was given up."""
    save(tmp_path, 1, 2, 3, 4)
    save_checkpoint(tmp_path, checkpoint(2, note="anew"), Retention(2))
    assert steps(tmp_path) == [1, 2]
    found = newest(tmp_path)
    assert found is not None
    assert same(found, checkpoint(2, note="anew"))


def test_what_is_not_this_runs_is_not_dropped(tmp_path: Path) -> None:
    for step in (1, 9):
        save_checkpoint(tmp_path, checkpoint(step, identity="other"), Retention())
    save(tmp_path, 2)
    (tmp_path / "step-00000002" / MANIFEST).unlink()
    (tmp_path / "step-00000007").touch()
    save(tmp_path, 3, 4, last=1)
    assert steps(tmp_path) == [1, 2, 4, 7, 9]


def test_another_runs_checkpoint_is_named_and_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, checkpoint(5, identity="other"), Retention())
    reporter = Loud()
    assert newest_checkpoint(tmp_path, reporter, "mine") == tmp_path / "step-00000001"
    assert len(reporter.warnings) == 1
    assert "step-00000005 is of another run" in reporter.warnings[0]
    assert newest_checkpoint(tmp_path, Silent()) == tmp_path / "step-00000005"
    assert newest_checkpoint(tmp_path, Silent(), "a third") is None


def test_one_of_a_version_without_identities_is_read_but_not_taken_for_ours(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        save_tensors(folder / "ema.safetensors", {"weight": torch.ones(3)})
        write_json(folder / "state.json", {"step": 3, "spent": 1.5})

    write_folder(tmp_path / "step-00000003", fill)
    assert newest_checkpoint(tmp_path, Silent(), "mine") is None
    assert read_checkpoint(tmp_path / "step-00000003").state == {"spent": 1.5}


def _cut(folder: Path) -> None:
    os.truncate(folder / "ema.safetensors", 40)


def _state_of_another_step(folder: Path) -> None:
    """The whole folder of another step, by this one's name."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-00000001"), folder)


def _a_folder_for_a_file(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def _dangling(folder: Path) -> None:
    (folder / "state.json").unlink()
    (folder / "state.json").symlink_to(folder / "nowhere")


def _one_more(folder: Path) -> None:
    shutil.copy(folder / "ema.safetensors", folder / "averages.safetensors")


def _unlisted(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]["state.json"]
    write_json(folder / MANIFEST, manifest)


DAMAGES = [_cut, _state_of_another_step, _a_folder_for_a_file, _dangling, _one_more, _unlisted]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_one_before_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path / "step-00000003")
    reporter = Loud()
    assert newest_checkpoint(tmp_path, reporter, "mine") == tmp_path / "step-00000002"
    assert len(reporter.warnings) == 1
    assert "step-00000003 is damaged" in reporter.warnings[0]
    with pytest.raises(CorruptFileError, match="step-00000003"):
        read_checkpoint(tmp_path / "step-00000003")
    save(tmp_path, 3)
    assert same(read_checkpoint(tmp_path / "step-00000003"), checkpoint(3))


def test_a_desktops_droppings_do_no_harm(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "._network.safetensors").write_bytes(b"Mac OS X")
    found = newest(tmp_path)
    assert found is not None
    assert same(found, checkpoint(1))


def test_an_old_one_that_cannot_be_dropped_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)
    rename = os.rename

    def refusing(one: Path, other: Path) -> None:
        if one.name.startswith("step-"):
            raise PermissionError
        rename(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refusing)
        save(tmp_path, 3, last=1)
    assert steps(tmp_path) == [1, 2, 3]
    save(tmp_path, 4, last=1)
    assert steps(tmp_path) == [4]


@pytest.mark.parametrize(("error", "lasting"), FAULTS)
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replacing"])
def test_any_fault_of_a_save_leaves_the_old_or_the_new(
    tmp_path: Path, error: int, lasting: bool, replaced: bool
) -> None:
    """Its writes, syncs, renames and the dropping of old ones; the next save then works and clears up."""
    stage, new = tmp_path / "run" / "vae", checkpoint(4, note="new", loss=2.0)
    old = checkpoint(4, loss=3.0) if replaced else checkpoint(3)

    def before() -> None:
        shutil.rmtree(stage, ignore_errors=True)
        save_checkpoint(stage, checkpoint(1, loss=1.0), Retention())
        save(stage, 2)
        save_checkpoint(stage, old, Retention())

    before()
    seen = set()
    for fault in each_fault(lambda: save_checkpoint(stage, new, Retention(1, (("loss", "min"),))), error, lasting):
        found = newest(stage)
        assert found is not None
        assert same(found, new) or (fault is not None and same(found, old))
        seen.add(same(found, new))
        assert best_checkpoint(stage, ("loss", "min")) == stage / "step-00000001"
        save_checkpoint(stage, checkpoint(5), Retention(1, (("loss", "min"),)))
        assert sorted(path.name for path in stage.iterdir()) == ["step-00000001", "step-00000005"]
        before()
    assert seen == {True, False}


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replacing"])
def test_a_kill_anywhere_in_a_save_leaves_the_old_or_the_new(
    tmp_path: Path, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = checkpoint(4, note="new"), checkpoint(4 if replaced else 3)
    save(tmp_path, 1, 2)
    save_checkpoint(tmp_path, old, Retention())
    for _ in each_kill(lambda: save_checkpoint(tmp_path, new, Retention(1))):
        found = newest(tmp_path)
        assert found is not None
        assert same(found, new) or same(found, old)
        shutil.rmtree(tmp_path / "step-00000004", ignore_errors=True)
        save(tmp_path, 1, 2)
        save_checkpoint(tmp_path, old, Retention())
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("old", [False, True], ids=["none before", "some before"])
def test_a_full_disk_names_the_checkpoint(tmp_path: Path, old: bool) -> None:
    stage = tmp_path / "vae"
    if old:
        save(stage, 1)
    for fault in each_fault(lambda: save_checkpoint(stage, checkpoint(2), Retention()), 28, False):
        assert fault is None or fault.filename in (str(stage / "step-00000002"), str(stage))
        found = newest(stage)
        assert (found.step if found else 0) in ((int(old), 2) if fault else (2,))
        assert not list(stage.glob(".step-*"))
        shutil.rmtree(stage / "step-00000002", ignore_errors=True)
