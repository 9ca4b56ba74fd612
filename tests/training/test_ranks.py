"""Several processes, one training: what each is given, that it adds up to what one does, and what comes of trouble."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.progress import Silent
from calotype.core.random import batch_ids
from calotype.core.tensors import load_tensors
from calotype.training.checkpoint import newest_checkpoint
from tests import ranks as ranks_module
from tests.ranks import Ended, Ranks
from tests.training.rank_scenes import BATCH, SAMPLES

SCENE = "tests.training.rank_scenes:train"
Spread = dict[str, Any]
FSDP: Spread = {"sharding": "fsdp"}
STOPPED = {"accident": "terminate", "at": 14, "on": 0}
GONE = "LostProcessError: another process of this run has stopped: its own message says why"


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with ranks_module.started() as forking:
        yield forking


@pytest.fixture(scope="module")
def trained(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, list[Any]]]:
    """Undisturbed runs, each made once: their folder, and what every rank says of it."""
    made: dict[str, tuple[Path, list[Any]]] = {}

    def run(world: int, **settings: Any) -> tuple[Path, list[Any]]:
        name = json.dumps([world, settings])
        if name not in made:
            folder = tmp_path_factory.mktemp("run")
            made[name] = folder, ranks(SCENE, world, folder, **settings)
        return made[name]

    return run


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("time", "rate")} for line in lines]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder) if "loss" in record]


def measures(folder: Path) -> list[float]:
    return [v for r in records(folder) for k, v in r.items() if k.startswith(("held_out", "train_error"))]


def files(folder: Path, stage: str = "denoiser") -> dict[str, bytes]:
    """Every byte of the newest checkpoint's tensors, and the metrics but for clock times."""
    newest = newest_checkpoint(folder / stage, Silent())
    assert newest is not None
    tensors = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    return {"step": newest.name.encode(), "metrics": json.dumps(records(folder)).encode(), **tensors}


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    newest = newest_checkpoint(folder / "denoiser", Silent())
    assert newest is not None
    found: dict[str, Tensor] = {}
    for path in newest.glob("*.safetensors"):
        found |= {f"{path.stem}/{name}": tensor for name, tensor in load_tensors(path).items()}
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


def steady(settings: Spread) -> float:
    """How far losses may drift apart: Muon enlarges small singular values with their rounding."""
    return 1e-4 if settings.get("optimizer") == "muon" else 1e-5


@pytest.mark.parametrize(
    ("worlds", "settings"),
    [
        ([(2, {}), (4, {}), (2, FSDP | STOPPED)], {"kind": "denoiser", "steps": 50}),
        ([(2, {}), (2, FSDP | STOPPED)], {"kind": "vae", "steps": 50}),
        ([(2, {})], {"kind": "vae", "steps": 50, "optimizer": "muon"}),
        ([(2, {})], {"kind": "denoiser", "steps": 20, "optimizer": "muon"}),
    ],
    ids=["denoiser", "vae", "vae-muon", "denoiser-muon"],
)
def test_any_number_of_ranks_learns_the_same(trained: Any, worlds: list[tuple[int, Spread]], settings: Spread) -> None:
    alone, _ = trained(1, **settings)
    one = torch.tensor(losses(alone))
    assert len(one) == settings["steps"]
    assert one[-10:].mean() < one[:10].mean()
    for world, how in worlds:
        folder, _ = trained(world, **settings, **how)
        several = torch.tensor(losses(folder))
        torch.testing.assert_close(several[0], one[0], rtol=3e-7, atol=0)
        assert len(several) == (STOPPED["at"] + 1 if "accident" in how else len(one))
        torch.testing.assert_close(several, one[: len(several)], rtol=steady(settings), atol=0)
        measured = measures(folder)
        assert measured == pytest.approx(measures(alone)[: len(measured)], rel=10 * steady(settings), abs=1e-5)


def test_the_ranks_shares_add_up_to_the_batch_of_one(trained: Any) -> None:
    for world in (1, 2, 4):
        _, told = trained(world, kind="denoiser", steps=50)
        for step in range(50):
            shares = [one["given"][str(step)] for one in told]
            if world > 2 and step == 0:  # three and more rehearse
                shares = [share[len(share) // 2 :] for share in shares]
            assert [len(share) for share in shares] == [BATCH // world] * world
            assert [sample for share in shares for sample in share] == batch_ids(3, step, BATCH, SAMPLES).tolist()


@pytest.mark.parametrize(
    ("world", "how"), [(1, {}), (2, {}), (2, FSDP)], ids=["one", "ddp", "fsdp"]
)  # of two ranks, one sample at a time is half of a share
def test_parts_of_a_batch_add_up_to_the_whole(trained: Any, world: int, how: Spread) -> None:
    alone, _ = trained(1, steps=8)
    for size in (1, 3) if world == 1 else (1,):
        folder, _ = trained(world, steps=8, micro_batch=size, **how)
        torch.testing.assert_close(losses(folder), losses(alone), rtol=1e-5, atol=0)
        assert [r["gradient_norm"] for r in records(folder) if "loss" in r] == pytest.approx(
            [r["gradient_norm"] for r in records(alone) if "loss" in r], rel=1e-5
        )


@pytest.mark.parametrize(("world", "how"), [(2, {}), (4, {}), (2, FSDP)], ids=["two", "four", "fsdp"])
def test_a_stop_asked_of_one_rank_stops_all_and_changes_nothing(
    ranks: Ranks, trained: Any, tmp_path: Path, world: int, how: Spread
) -> None:
    told = ranks(SCENE, world, tmp_path, steps=8, accident="terminate", at=4, on=world - 1, **how)
    assert [one["stopped"] for one in told] == [True] * world
    assert files(tmp_path)["step"] == b"step-00000005"
    ranks(SCENE, world, tmp_path, steps=8, **how)
    undisturbed, _ = trained(world, steps=8, **how)
    assert files(tmp_path) == files(undisturbed)


@pytest.mark.parametrize(
    ("first", "then"),
    [((2, {}), (1, {})), ((1, {}), (2, {})), ((2, FSDP), (1, {})), ((1, {}), (2, FSDP)), ((2, FSDP), (4, {}))],
    ids=["2-1", "1-2", "fsdp-1", "1-fsdp", "fsdp-4"],
)
def test_what_some_began_others_go_on_with(
    ranks: Ranks, trained: Any, tmp_path: Path, first: tuple[int, Spread], then: tuple[int, Spread]
) -> None:
    alone, _ = trained(1, steps=8)
    ranks(SCENE, first[0], tmp_path, steps=8, accident="terminate", at=4, on=0, **first[1])
    ranks(SCENE, then[0], tmp_path, steps=8, **then[1])
    torch.testing.assert_close(losses(tmp_path), losses(alone), rtol=1e-5, atol=0)
    assert shapes(tmp_path) == shapes(alone)


def test_ranks_that_do_not_divide_the_batch_are_told_which_would(ranks: Ranks, tmp_path: Path) -> None:
    said = "UserError: 3 processes cannot share a batch of 4 evenly: start one of 1, 2, 4 processes"
    assert [one.error for one in ranks.ended(SCENE, 3, tmp_path)] == [said] * 3


@pytest.mark.parametrize("how", [{}, FSDP])
def test_all_take_the_scores_together(ranks: Ranks, trained: Any, tmp_path: Path, how: Spread) -> None:
    """At the same steps; the best is the same one to each, or some would wait for ever where others save."""
    scored = {"steps": 14, "score_every": 6, "keep": 1, "validate_every": 4, **how}
    folder, _ = trained(2, **scored)
    found = {r["step"]: r["kernel_distance"] for r in records(folder) if "kernel_distance" in r}
    alone = {r["step"]: r["kernel_distance"] for r in records(trained(1, **scored)[0]) if "kernel_distance" in r}
    assert list(found) == [6, 12, 14]
    assert found == pytest.approx(alone, rel=1e-4)
    ranks(SCENE, 2, tmp_path, accident="terminate", at=8, on=0, **scored)
    ranks(SCENE, 2, tmp_path, **scored)
    assert files(tmp_path) == files(folder)


@pytest.mark.parametrize(
    ("world", "accident", "on", "how"),
    [
        (2, "kill", 1, {}),
        (2, "kill", 0, {}),
        (4, "kill", 2, {}),
        (2, "kill", 1, FSDP),
        (2, "kill in validation", 1, {}),
        (2, "kill in validation", 1, FSDP),
        (2, "kill in score", 1, {"score_every": 5}),
        (2, "kill in save", 1, {}),
        (2, "kill in save", 0, {}),
        (2, "kill in save", 1, FSDP),
    ],
)
def test_when_one_rank_dies_the_others_end_with_one_line(
    ranks: Ranks, tmp_path: Path, world: int, accident: str, on: int, how: Spread
) -> None:
    settings = {"validate_every": 6, "checkpoint_seconds": 0.0} if accident == "kill in save" else {"validate_every": 6}
    ended = ranks.ended(
        SCENE, world, tmp_path, steps=12, accident=accident, at=4, on=on, patience=60, **settings, **how
    )
    assert ended[on] == Ended(killed=9, seconds=ended[on].seconds)
    assert [one.error for rank, one in enumerate(ended) if rank != on] == [GONE] * (world - 1)


def test_a_sample_that_gives_no_number_is_named_wherever_it_was(ranks: Ranks, trained: Any, tmp_path: Path) -> None:
    told = ranks(SCENE, 2, tmp_path, steps=8, accident="nan", at=5, on=1)
    culprit = batch_ids(3, 5, BATCH, SAMPLES).tolist()[BATCH // 2]
    assert told[1]["told"] == told[0]["told"]  # the pipeline gives rank 1 a silent reporter
    (warning,) = [line for line in told[0]["told"] if "skipped" in line]
    assert f"denoiser, step 6: sample {culprit} (picture {culprit}), noise bin" in warning
    (record,) = [record for record in records(tmp_path) if "skipped" in record]
    assert record["skipped"] == [culprit]
    assert len(losses(tmp_path)) == 7
    undisturbed, _ = trained(2, steps=8)
    assert losses(tmp_path)[:5] == losses(undisturbed)[:5]


def test_all_ranks_go_back_together(ranks: Ranks, trained: Any, tmp_path: Path) -> None:
    told = ranks(SCENE, 2, tmp_path, steps=8, accident="all nan", at=5)
    for one in told:
        assert [line for line in one["told"] if "back to step 0" in line]
        assert sorted(map(int, one["given"])) == list(range(8))
        assert all(len(one["given"][str(step)]) == BATCH for step in range(6))  # taken twice
    alone = tmp_path / "alone"
    ranks(SCENE, 1, alone, steps=8, accident="all nan", at=5)
    torch.testing.assert_close(losses(tmp_path), losses(alone), rtol=1e-5, atol=0)
    assert files(tmp_path)["step"] == b"step-00000008"


def test_nobody_minds_waiting_for_a_slow_preview(ranks: Ranks, trained: Any, tmp_path: Path) -> None:
    ranks(SCENE, 2, tmp_path, steps=8, accident="slow preview")
    undisturbed, _ = trained(2, steps=8)
    assert files(tmp_path) == files(undisturbed)
