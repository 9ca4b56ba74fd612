"""What is encoded, and what is not encoded again: pictures added, removed, damaged, shared, killed, divided."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calotype.core.progress import Silent
from calotype.latents import encode_pictures, encoding, read_statistics
from tests.latents.encoding_making import picture_set, shards, tiny_vae


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    warn = say


@pytest.fixture(autouse=True)
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shards of eight, batches of three; every batch that goes through the VAE is counted."""
    counts: list[int] = []
    compute = encoding._posteriors
    monkeypatch.setattr(encoding, "SHARD", 8)
    monkeypatch.setattr(encoding, "BATCH", 3)
    monkeypatch.setattr(
        encoding, "_posteriors", lambda vae, images, m: (counts.append(len(images)), compute(vae, images, m))[1]
    )
    return counts


def test_statistics_are_of_training_pictures_alone_and_stay(tmp_path: Path) -> None:
    first = encode_pictures(tiny_vae(), picture_set(*range(12), held_out=2), tmp_path / "a", mirrored=True)
    other = encode_pictures(tiny_vae(), picture_set(*range(10), 20, 21, held_out=2), tmp_path / "b", mirrored=True)
    assert first.statistics == other.statistics
    later = encode_pictures(tiny_vae(), picture_set(*range(12), 30), tmp_path / "a", mirrored=True)
    assert later.statistics == first.statistics == read_statistics(tmp_path / "a"), "a denoiser has learned with these"
    anew = encode_pictures(tiny_vae(1), picture_set(*range(12)), tmp_path / "a", mirrored=True)
    assert anew.statistics != first.statistics


def test_only_what_is_new_is_encoded(tmp_path: Path, encoded: list[int]) -> None:
    vae, folder = tiny_vae(), tmp_path / "latents"
    encode_pictures(vae, picture_set(*range(20)), folder, mirrored=False)
    assert sum(encoded) == 20
    before = shards(folder)
    assert len(before) == 3
    encode_pictures(vae, picture_set(*range(20)), folder, mirrored=False)
    encode_pictures(vae, picture_set(19, *range(5)), folder, mirrored=False)
    assert sum(encoded) == 20, "the same again, or fewer, or in another order: nothing"
    latents = encode_pictures(vae, picture_set(40, *range(20), 41, 40), folder, mirrored=False)
    assert sum(encoded) == 22, "equal pictures once"
    assert before.items() < shards(folder).items()
    assert torch.equal(latents.posterior(torch.tensor([0]))[0], latents.posterior(torch.tensor([22]))[0])


def test_another_vae_transform_or_mirroring_is_another_cache(tmp_path: Path, encoded: list[int]) -> None:
    folder, pictures = tmp_path / "latents", picture_set(*range(4))
    resized = picture_set(*range(4), size=24)
    for vae, those, mirrored in [
        (tiny_vae(), pictures, False),
        (tiny_vae(1), pictures, False),
        (tiny_vae(1), pictures, True),
        (tiny_vae(1), resized, True),
    ]:
        encoded.clear()
        encode_pictures(vae, those, folder, mirrored=mirrored)
        assert sum(encoded) == 4
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 1, "the former one is gone"
    (key,) = folder.glob("*/key.json")
    assert '"mirrored": true' in key.read_text()


def test_a_damaged_shard_is_encoded_again_to_the_same_bytes(tmp_path: Path, encoded: list[int]) -> None:
    reporter = Heard()
    encode_pictures(tiny_vae(), picture_set(*range(20)), tmp_path, mirrored=True)
    before = shards(tmp_path)
    broken = next(
        path for path in tmp_path.glob("*/*.safetensors") if len(before[path.name]) == max(map(len, before.values()))
    )
    broken.write_bytes(b"\0" + before[broken.name][1:])
    encoded.clear()
    encode_pictures(tiny_vae(), picture_set(*range(20)), tmp_path, mirrored=True, reporter=reporter)
    assert sum(encoded) == 8
    assert shards(tmp_path) == before
    assert any(broken.name in line and "damaged" in line for line in reporter.said)


def test_a_second_run_takes_over_what_the_first_has(tmp_path: Path, encoded: list[int]) -> None:
    reporter = Heard()
    encode_pictures(tiny_vae(), picture_set(*range(12)), tmp_path / "a" / "latents", mirrored=True)
    encoded.clear()
    folders = sorted(tmp_path.glob("*/latents"))
    latents = encode_pictures(
        tiny_vae(),
        picture_set(*range(12)),
        tmp_path / "b" / "latents",
        mirrored=True,
        beside=folders,
        reporter=reporter,
    )
    assert encoded == []
    assert len(latents) == 12
    assert shards(tmp_path / "b" / "latents") == shards(tmp_path / "a" / "latents")
    assert "12 pictures come from another run" in reporter.said[0]
    encode_pictures(tiny_vae(1), picture_set(*range(12)), tmp_path / "c" / "latents", mirrored=True, beside=folders)
    assert sum(encoded) == 12, "another VAE's are not its own"


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    encode_pictures(tiny_vae(), picture_set(*range(4)), tmp_path, mirrored=True)
    (key,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for folder in (tmp_path, key):
        (folder / ".statistics.json.77.tmp").write_text("{")
    encode_pictures(tiny_vae(), picture_set(*range(4)), tmp_path, mirrored=True)
    assert not list(tmp_path.rglob(".*"))


class KilledError(BaseException):
    pass


def test_killed_after_any_unit_or_within_one_the_files_are_the_same(
    tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, written, left = picture_set(*range(27)), [], [0]
    add, compute = encoding.ShardStore.add, encoding._posteriors
    encode_pictures(tiny_vae(), pictures, tmp_path / "whole", mirrored=True)

    def count(*asked: object) -> None:
        written.append(add(*asked).name)  # type: ignore[arg-type]

    def fall(*asked: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return compute(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding.ShardStore, "add", count)
    monkeypatch.setattr(encoding, "_posteriors", fall)
    encoded.clear()
    for batches in (1, 3, 5, 0, 2):  # a shard takes three
        left[0] = batches
        with pytest.raises(KilledError):
            encode_pictures(tiny_vae(), pictures, tmp_path / "killed", mirrored=True)
    assert len(written) == 2
    left[0] = 10**6
    encode_pictures(tiny_vae(), pictures, tmp_path / "killed", mirrored=True)
    assert len(written) == len(set(written)) == 4, "no finished shard is encoded twice"
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")


RANKS = """
import os, sys, time, torch
from pathlib import Path
from calotype.core import distributed
from calotype.latents import encode_pictures, encoding
from tests.latents.encoding_making import picture_set, tiny_vae
torch.set_num_threads(1)
encoding.SHARD, encoding.BATCH = 8, 3
os.environ["RANK"] = "0" if os.fork() else "1"
told, add, missing = [], encoding.ShardStore.add, encoding.ShardStore.missing
encoding.ShardStore.missing = lambda *all: (time.sleep(0.5 * int(os.environ["RANK"])), missing(*all))[1]
encoding.ShardStore.add = lambda *all: told.append(add(*all).name)
with distributed.joined(torch.device("cpu")):
    assert (distributed.rank(), distributed.world_size()) == (int(os.environ["RANK"]), 2)
    latents = encode_pictures(tiny_vae(), picture_set(*range(27)), Path(sys.argv[1]), mirrored=True)
    told.append(str(float(sum(part.double().sum() for part in latents.posterior(torch.arange(27))))))
Path(sys.argv[1], "told-" + os.environ["RANK"]).write_text(" ".join(told))
if os.environ["RANK"] == "0":
    os.wait()
"""


def test_two_processes_encode_disjoint_halves_of_the_same_cache(tmp_path: Path) -> None:
    """Even if one is late to look what there is to do."""
    encode_pictures(tiny_vae(), picture_set(*range(27)), tmp_path / "one", mirrored=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", RANKS, str(tmp_path / "two")]
    subprocess.run(words, env={**os.environ, **place}, timeout=100, check=True)
    (*first, its_sum), (*second, other_sum) = (
        (tmp_path / "two" / f"told-{rank}").read_text().split() for rank in range(2)
    )
    assert (len(first), len(second)) == (2, 2)
    assert not {*first} & {*second}
    assert its_sum == other_sum
    assert shards(tmp_path / "two") == shards(tmp_path / "one")
    assert read_statistics(tmp_path / "two") == read_statistics(tmp_path / "one")
