"""The real packages, offline: what they wrote is read back from their own files."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calotype.core.progress import Silent
from calotype.training.tracking import Trackers

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from calotype.training.tracking import Trackers

name, folder, first, last, end = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
trackers = Trackers(folder, [name], project="calotype", run="photos", config={"size": 64})
for step in range(first, last + 1):
    for stage in ("vae", "denoiser"):
        trackers.record({"stage": stage, "step": step, "loss": step / 4, "by_noise": [0.5, None], "time": 1.0})
    if step == 3:
        trackers.image("vae", 3, folder / "vae-00000003.png")
if end == "killed":
    time.sleep(1.8)  # W&B's own process writes once a second
    os.kill(os.getpid(), signal.SIGKILL)
trackers.close()
"""


def paint(folder: Path) -> None:
    Image.new("RGB", (24, 16), (200, 30, 10)).save(folder / "vae-00000003.png")


def process(name: str, folder: Path, first: int, last: int, end: str) -> None:
    """One process of a run that records some steps. It has no network but what its packages would find."""
    mine = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder)}
    command = [sys.executable, "-c", PROGRAM, name, str(folder), str(first), str(last), end]
    done = subprocess.run(command, env=os.environ | mine, capture_output=True, text=True, timeout=120)
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    assert done.stdout == ""


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    paint(tmp_path)
    for first, last in ((1, 3), (2, 5)):  # the second process replays two steps
        trackers = Trackers(tmp_path, ["tensorboard"], project="p", run="r", config={})
        for step in range(first, last + 1):
            trackers.record({"stage": "vae", "step": step, "loss": step / 4, "by_noise": [0.5, None]})
            if step == 3:
                trackers.image("vae", 3, tmp_path / "vae-00000003.png")
        trackers.close()
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    pictures = []
    for file in sorted((tmp_path / "trackers" / "tensorboard").iterdir()):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found[tag] += [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["images"]:
            pictures += [(tag, event.step, event.width, event.height) for event in events.Images(tag)]
    steps = range(1, 6)
    assert found == {"vae/loss": [(k, k / 4) for k in steps], "vae/by_noise/0": [(k, 0.5) for k in steps]}
    assert pictures == [("vae/preview", 3, 24, 16)]


def test_tensorboard_on_a_full_disk_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "warn", warned.append)
    trackers = Trackers(tmp_path, ["tensorboard"], project="p", run="r", config={}, reporter=reporter)
    trackers.record({"stage": "vae", "step": 1, "loss": 1.0})

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # no file may grow beyond this
    try:
        for step in range(2, 60):
            trackers.record({"stage": "vae", "step": step, "loss": 1.0})
        trackers.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(warned) == 1
    assert "the tracker tensorboard, which failed: [Errno 27] File too large" in warned[0]


def test_weights_and_biases_offline(tmp_path: Path) -> None:
    paint(tmp_path)
    process("wandb", tmp_path, 1, 3, "killed")
    process("wandb", tmp_path, 2, 5, "closed")
    files = sorted((tmp_path / "trackers" / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1, "the second process goes on with the run of the first"
    axes, rows, told = {}, [], []
    for file in files:
        for record in wandb_records(file):
            told.append(record.WhichOneof("record_type"))
            if told[-1] == "run":
                assert record.run.host == ""
            if record.WhichOneof("record_type") == "metric" and record.metric.step_metric:
                axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            if record.WhichOneof("record_type") == "history":
                keys = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                rows.append({key: value for key, value in keys.items() if not key.startswith("_")})
    assert axes == {"vae/*": "vae/step", "denoiser/*": "denoiser/step"}
    for stage in ("vae", "denoiser"):
        losses = {int(row[f"{stage}/step"]): float(row[f"{stage}/loss"]) for row in rows if f"{stage}/loss" in row}
        assert losses == {k: k / 4 for k in range(1, 6)}
    assert len(rows) == 2 * 5 + 1, "ten records and a picture, none twice"
    assert len(list(files[0].parent.rglob("media/images/vae/preview_*.png"))) == 1
    assert not list(files[0].parent.rglob("requirements.txt"))
    assert "environment" not in told, "the machine, the program and its arguments"


def test_trackio(tmp_path: Path) -> None:
    paint(tmp_path)
    process("trackio", tmp_path, 1, 3, "closed")
    process("trackio", tmp_path, 2, 5, "closed")
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics order by id").fetchall()
    connection.close()
    assert len({name for name, _, _ in rows}) == 1, "the second process goes on with the run of the first"
    values = [(step, json.loads(metrics)) for _, step, metrics in rows]
    for stage in ("vae", "denoiser"):
        losses = [(step, value[f"{stage}/loss"]) for step, value in values if f"{stage}/loss" in value]
        assert losses == [(k, k / 4) for k in range(1, 6)]
    (shown,) = [value["vae/preview"]["file_path"] for _, value in values if "vae/preview" in value]
    assert list((tmp_path / "trackio").rglob(Path(shown).name))


def wandb_records(path: Path) -> list[Any]:
    """The records of an offline run: 7 bytes, then LevelDB's log format (blocks of 32 KiB, crc, length, kind)."""
    from wandb.proto import wandb_internal_pb2

    content, at, records, parts = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        if kind == 0:
            break
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records
