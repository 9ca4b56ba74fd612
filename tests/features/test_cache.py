"""Kept features: read again for the same pictures and the same network alone, and never when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calotype.core.progress import Silent
from calotype.features import cached_features


class Counting:
    """Features that are the picture's own mean colour; it knows how many pictures it saw."""

    dim = 3

    def __init__(self, name: str = "mean colour", sha256: str = "ab" * 32) -> None:
        self.name, self.sha256, self.seen = name, sha256, 0

    def __call__(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        assert -1 <= images.min() <= images.max() <= 1
        self.seen += len(images)
        return images.mean((2, 3))


def pixels(count: int = 300, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 4, 4), generator=generator).to(torch.uint8)


def test_features_are_computed_once(tmp_path: Path) -> None:
    extractor, given = Counting(), pixels()
    first = cached_features(extractor, given, tmp_path / "features")
    torch.testing.assert_close(first, given.float().mean((2, 3)) / 127.5 - 1)
    assert torch.equal(cached_features(extractor, given.clone(), tmp_path / "features"), first)
    assert extractor.seen == 300
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".safetensors"]


class Told(Silent):
    def __init__(self) -> None:
        self.etas: list[float | None] = []

    def update(self, *_: Any, eta: float | None = None, **__: Any) -> None:
        self.etas.append(eta)


def test_how_long_the_features_still_take_is_told(tmp_path: Path) -> None:
    told = Told()
    cached_features(Counting(), pixels(), tmp_path, reporter=told)
    assert [eta is not None and eta > 0 for eta in told.etas] == [True, True, False]
    assert told.etas[-1] == 0


@pytest.mark.parametrize("change", ["name", "hash", "pixels", "order", "count"])
def test_another_network_or_other_pictures_are_computed_anew(tmp_path: Path, change: str) -> None:
    given = pixels()
    cached_features(Counting(), given, tmp_path)
    other = Counting(name="x") if change == "name" else Counting(sha256="cd" * 32) if change == "hash" else Counting()
    if change == "pixels":
        given[299, 2, 3, 3] ^= 1
    changed = {"order": given.flip(0), "count": given[:-1]}.get(change, given)
    torch.testing.assert_close(cached_features(other, changed, tmp_path), changed.float().mean((2, 3)) / 127.5 - 1)
    assert other.seen == {"pixels": 1, "order": 0, "count": 0}.get(change, 300)


def test_what_is_not_asked_for_again_is_the_first_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.features.cache.MOST_KEPT", 8)
    first, second = pixels(6), pixels(6, seed=1)
    for given in (first, torch.cat([first[:2], second]), first[:2]):
        again = Counting()
        cached_features(again, given, tmp_path)
    assert again.seen == 0
    cached_features(again, first, tmp_path)
    assert again.seen == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "bytes"])
def test_a_damaged_file_counts_for_nothing_and_is_replaced(tmp_path: Path, damage: str) -> None:
    given = pixels(10)
    wanted = cached_features(Counting(), given, tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        at = bytes(content).index(wanted.numpy().tobytes())
        content[at + 7] ^= 1
    elif damage == "other":
        aside = tmp_path / "aside"
        cached_features(Counting(), pixels(10, seed=1), aside)
        content = bytearray(next(aside.iterdir()).read_bytes())
    else:
        content = {"empty": bytearray(), "cut": content[:-1], "bytes": bytearray(b"features")}[damage]
    path.write_bytes(content)
    extractor = Counting()
    for _ in range(2):
        assert torch.equal(cached_features(extractor, given, tmp_path), wanted)
    assert extractor.seen == 10


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file in its place")
    extractor, given = Counting(), pixels(5)
    for _ in range(2):
        assert cached_features(extractor, given, tmp_path / "features").shape == (5, 3)
    assert extractor.seen == 10


def test_progress_is_told_while_computing(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    class Noting(Silent):
        def update(self, done: int, total: int | None, **_: object) -> None:  # type: ignore[override]
            told.append((done, total))

    for _ in range(2):
        cached_features(Counting(), pixels(), tmp_path, reporter=Noting())
    assert told == [(128, 300), (256, 300), (300, 300)]
    assert cached_features(Counting(), pixels(0), tmp_path).shape == (0, 3)
