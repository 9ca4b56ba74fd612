"""The train command under torchrun: every process encodes its share, the first one does the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from calotype.pipeline import Run, train
from tests.pipeline.conftest import QUICK, paint


def trained_by_two(data: Path, out: Path) -> Run:
    """The command line in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    words = ["calotype", "train", str(data), "--out", str(out), "--size", "32", "--steps", "2", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONWARNINGS": "ignore"}
    subprocess.run([*start, *words], check=True, env=environment, capture_output=True, timeout=120)
    return Run(out)


def shards(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.latents.rglob("*.safetensors")}


def test_two_processes_make_the_run_that_one_makes(tmp_path: Path) -> None:
    data = paint(tmp_path / "shapes")
    rows = [{"file_name": f"{path.parent.name}/{path.name}", "text": path.parent.name} for path in data.rglob("*.png")]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = train(data, out=tmp_path / "one" / "run", size=32, steps=2, overrides=QUICK)
    two = trained_by_two(data, tmp_path / "two" / "run")  # not beside the other, whose shards it would take over
    assert shards(one)
    assert shards(one) == shards(two)
    for name in ("vae.safetensors", "denoiser.safetensors"):
        assert (one.model / name).read_bytes() == (two.model / name).read_bytes()
    assert two.report.is_file()
