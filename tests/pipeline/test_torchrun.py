"""The train command in two processes: under torchrun, and under anything else that sets the same variables."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.core.files import read_lines
from calotype.core.tensors import load_tensors
from calotype.pipeline import Run, train
from tests.pipeline.conftest import QUICK, paint

SETTINGS = [*QUICK, "training.log_every=1", "training.score_every=2"]


def words(data: Path, out: Path, start: Path, steps: int) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    paths = ["--out", str(out), "--from", str(start)]
    return ["calotype", "train", str(data), *paths, "--size", "32", "--steps", str(steps), *settings]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def under_torchrun(command: list[str]) -> str:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*start, *command], check=False, env=environment(), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def by_variables_alone(command: list[str]) -> str:
    """As accelerate launch, srun or a shell script start processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_MIXED_PRECISION": "no"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment(**group, RANK=rank, LOCAL_RANK=rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [child.communicate(timeout=150)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert said[1] == ""  # rank 0 speaks for all
    return said[0]


def shards(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.latents.rglob("*.safetensors")}


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in read_lines(run.metrics) if record["stage"] == "denoiser" and "loss" in record]


def scores(run: Run) -> list[float]:
    return [record["kernel_distance"] for record in read_lines(run.metrics) if "kernel_distance" in record]


def assert_alike(run: Run, other: Run) -> None:
    """The same but for the last digits."""
    assert shards(run)
    assert shards(run) == shards(other)
    assert losses(run) == pytest.approx(losses(other), rel=1e-5)
    assert scores(run)
    assert scores(run) == pytest.approx(scores(other), rel=1e-3)
    weights, others = (load_tensors(one.model / "denoiser.safetensors") for one in (run, other))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)
    drawn, others_drawn = (np.asarray(Image.open(one.samples / "final.png"), dtype=int) for one in (run, other))
    assert np.abs(drawn - others_drawn).max() <= 2  # of 255: each process drew its share of the sheet
    assert run.report.is_file()


def test_two_processes_make_the_run_that_one_makes(tmp_path: Path) -> None:
    data = paint(tmp_path / "shapes")
    rows = [{"file_name": f"{path.parent.name}/{path.name}", "text": path.parent.name} for path in data.rglob("*.png")]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = train(data, out=tmp_path / "start" / "run", size=32, steps=1, overrides=SETTINGS).folder
    # Not beside each other, whose shards they would take over.
    one, two = (tmp_path / name / "run" for name in ("one", "two"))
    train(data, out=one, size=32, steps=2, from_model=start, overrides=SETTINGS)
    under_torchrun(words(data, two, start, 2))
    assert len(losses(Run(two))) == 2
    assert_alike(Run(two), Run(one))
    train(data, out=one, size=32, steps=4, from_model=start, overrides=SETTINGS)
    assert "continuing the denoiser from step 2" in by_variables_alone(words(data, two, start, 4))
    assert len(losses(Run(two))) == 4
    assert_alike(Run(two), Run(one))
