"""What the proof of resume compares, and that it sees the smallest difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from calotype.inspection.resume import differences, draw_pictures, fingerprint, first_difference

RECORD = {"stage": "vae", "step": 4, "loss": 0.25, "loss_by_noise": [0.5, None], "rate": 3.0, "time": 1.5}
STATE = {"step": 8, "identity": "a/vae", "spent": 3.0, "metrics": {"sums": {"loss": 0.5}}, "guard": {"recent": [1.0]}}


def lay_out(run: Path) -> Path:
    """A run folder with a file of every kind."""
    files = {
        "config.yaml": "recipe: {}\n",
        "journal.jsonl": json.dumps({"event": "run", "id": "a"}) + "\n",
        "metrics.jsonl": json.dumps(RECORD) + "\n",
        "vae/step-00000004/network.safetensors": "old",
        "vae/step-00000008/network.safetensors": "weights",
        "vae/step-00000008/state.json": json.dumps(STATE),
        "vae/step-00000008/manifest.json": "{}",
        "vae/averages/00000008.safetensors": "averages",
        "model/manifest.json": "{}",
        "latents/one/shard.safetensors": "latents",
        "report.html": "at noon",
        ".lock": "",
    }
    for name, text in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    return run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of the same content."""
    one = lay_out(tmp_path / "one")
    return one, Path(shutil.copytree(one, tmp_path / "other"))


def test_what_is_compared(runs: tuple[Path, Path]) -> None:
    assert list(fingerprint(runs[0])) == [
        "config.yaml",
        "journal.jsonl",
        "latents/one/shard.safetensors",
        "metrics.jsonl",
        "model/manifest.json",
        "vae/averages/00000008.safetensors",
        "vae/step-00000008/network.safetensors",
        "vae/step-00000008/state.json",
    ]


def rewrite(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("metrics.jsonl", '"time": 1.5', '"time": 9'),
        ("metrics.jsonl", '"rate": 3.0', '"rate": 9'),
        ("vae/step-00000008/state.json", '"spent": 3.0', '"spent": 9'),
        ("vae/step-00000008/state.json", "a/vae", "b/vae"),
        ("vae/step-00000008/manifest.json", "{}", '{"files": {}}'),
        ("vae/step-00000004/network.safetensors", "old", "older"),
        ("journal.jsonl", '"id": "a"', '"id": "b"'),
        ("report.html", "noon", "night"),
    ],
)
def test_clocks_and_marks_may_differ(runs: tuple[Path, Path], name: str, old: str, new: str) -> None:
    one, other = runs
    rewrite(other / name, old, new)
    assert differences(fingerprint(one), fingerprint(other)) == []
    assert first_difference(one / "metrics.jsonl", other / "metrics.jsonl") is None


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("metrics.jsonl", "0.25", "0.2500000000000001"),
        ("metrics.jsonl", "null", "0.0"),
        ("vae/step-00000008/state.json", '"sums": {"loss": 0.5}', '"sums": {"loss": 0.75}'),
        ("vae/step-00000008/state.json", "[1.0]", "[1.5]"),
        ("vae/step-00000008/network.safetensors", "weights", "weightt"),
        ("vae/averages/00000008.safetensors", "averages", "averaget"),
        ("model/manifest.json", "{}", "[]"),
    ],
)
def test_anything_else_may_not(runs: tuple[Path, Path], name: str, old: str, new: str) -> None:
    one, other = runs
    rewrite(other / name, old, new)
    assert differences(fingerprint(one), fingerprint(other)) == [name]


def test_a_file_that_one_run_lacks_is_a_difference(runs: tuple[Path, Path]) -> None:
    one, other = runs
    (other / "latents" / "one" / "shard.safetensors").unlink()
    (other / "samples").mkdir()
    (other / "samples" / "final.png").touch()
    expected = ["latents/one/shard.safetensors", "samples/final.png"]
    assert differences(fingerprint(one), fingerprint(other)) == expected


def test_the_first_step_that_differs_is_named(runs: tuple[Path, Path]) -> None:
    paths = [run / "metrics.jsonl" for run in runs]
    for path, loss in zip(paths, (0.5, 0.75), strict=True):
        path.write_text(
            "".join(json.dumps({**RECORD, "step": step, "loss": loss * (step > 4)}) + "\n" for step in (4, 8, 12))
        )
    assert first_difference(*paths) == {"stage": "vae", "step": 8, "values": ["loss"]}
    shutil.copy(paths[0], paths[1])
    paths[1].write_text("".join(paths[1].read_text().splitlines(keepends=True)[:-1]))
    found = first_difference(*paths)
    assert found is not None
    assert found["step"] == 12


def test_the_drawn_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    drawn = [draw_pictures(tmp_path / name, side=16, each=3) for name in "ab"]
    contents = [[path.read_bytes() for path in sorted(folder.rglob("*.png"))] for folder in drawn]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 6
