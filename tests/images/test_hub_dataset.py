"""Data sets that the library of Hugging Face saved, or that its hub is said to have; no network here."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from calotype.core.errors import UserError
from calotype.images import UnreadablePictureError, hub_dataset, open_source
from calotype.images.source import is_elsewhere
from tests.images.making import fill, noise_png


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that were asked for; none answers."""
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> None:
        asked.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


def data_set(pictures: list[bytes | None], labels: list[int] | None = None) -> datasets.Dataset:
    rows = {
        "image": [None if content is None else {"bytes": content, "path": None} for content in pictures],
        "text": [f"number  {i}" for i in range(len(pictures))],
        "label": labels or [0] * len(pictures),
    }
    kinds = {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def test_saved_folder(tmp_path: Path, no_network: list[Any]) -> None:
    pictures = [noise_png(0), b"no picture", None, noise_png(3)]
    data_set(pictures, [0, 1, -1, 1]).save_to_disk(tmp_path / "saved", num_shards=2)
    found = open_source(tmp_path / "saved", size=16).pictures
    assert [(p.name, p.caption, p.label, p.split) for p in found] == [
        ("0", "number 0", "cat", None),
        ("1", "number 1", "dog", None),
        ("2", "number 2", None, None),
        ("3", "number 3", "dog", None),
    ]
    assert [found[i].read() for i in (0, 1, 3)] == [noise_png(0), b"no picture", noise_png(3)]
    with pytest.raises(UnreadablePictureError, match="no picture in this row"):
        found[2].read()
    assert no_network == []


def test_saved_splits_and_chosen_rows(tmp_path: Path) -> None:
    whole = data_set([noise_png(i) for i in range(4)])
    splits = {"train": whole.select([3, 1]), "validation": whole.select([0])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = open_source(tmp_path / "saved", size=16).pictures
    assert [(p.name, p.caption, p.split) for p in found] == [
        ("train/0", "number 3", "train"),
        ("train/1", "number 1", "train"),
        ("validation/0", "number 0", "held-out"),
    ]
    assert [p.read() for p in found] == [noise_png(3), noise_png(1), noise_png(0)]
    for name, kinds in (("other", ["a", "test"]), ("alone", ["train"])):  # neither says what to hold out
        datasets.DatasetDict(dict.fromkeys(kinds, whole)).save_to_disk(tmp_path / name)
        assert {p.split for p in open_source(tmp_path / name, size=16).pictures} == {None}


def test_damaged_saved_folders(tmp_path: Path) -> None:
    data_set([noise_png(i) for i in range(4)]).save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    whole, info = arrow.read_bytes(), (tmp_path / "saved" / "dataset_info.json").read_text()
    for content in (whole[: len(whole) // 2], b"", b"\xff" * 400):
        arrow.write_bytes(content)
        with pytest.raises(UserError, match="not a whole saved data set"):
            open_source(tmp_path / "saved", size=16)
    arrow.write_bytes(whole)
    for text in ("{", json.dumps({"features": {"image": {"_type": "Nothing"}}}), "[]"):
        fill(tmp_path / "saved", {"dataset_info.json": text})
        with pytest.raises(UserError, match="not a whole saved data set"):
            open_source(tmp_path / "saved", size=16)
    fill(tmp_path / "saved", {"dataset_info.json": info})
    assert len(open_source(tmp_path / "saved", size=16).pictures) == 4


def test_wrong_offsets_in_a_saved_file_do_not_end_the_process(tmp_path: Path) -> None:
    """Arrow reads a saved file as it lies on the disk, offsets and all."""
    pictures: list[bytes | None] = [noise_png(i) for i in range(4)]
    data_set(pictures).save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    ends = [0]
    for content in pictures:
        ends.append(ends[-1] + len(content or b""))
    offsets = b"".join(end.to_bytes(4, "little") for end in ends)
    whole = arrow.read_bytes()
    assert whole.count(offsets) == 1
    arrow.write_bytes(whole.replace(offsets, offsets[:4] + b"\xff\xff\xff\x6f" * 4))
    with pytest.raises(UserError, match="not a whole saved data set"):
        open_source(tmp_path / "saved", size=16)


def test_an_id_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    sleeps: list[float] = []
    monkeypatch.setattr(time, "sleep", sleeps.append)
    with pytest.raises(UserError, match=r"neither .*the hub does not answer\): .* the files of .*someone/photos into"):
        open_source("someone/photos", size=16)
    assert sleeps == []  # the library alone asks again and again
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


def test_an_id_is_loaded_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither counted nor told of, and the user's own choices are as before afterwards."""
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)

    def load(hub_id: str) -> datasets.DatasetDict:
        assert (datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, constants.HF_HUB_DISABLE_TELEMETRY) == (False, True)
        assert hub_id == "someone/photos"
        return datasets.DatasetDict({"train": data_set([noise_png(5)])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("someone/photos", "hf://datasets/someone/photos"):
        assert is_elsewhere(name)
        assert [p.read() for p in open_source(name, size=16).pictures] == [noise_png(5)]
    assert (datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, constants.HF_HUB_DISABLE_TELEMETRY) == (True, False)


def test_what_the_hub_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_dataset, "_answers", lambda hub_id: True)
    for error, says in (
        (datasets.exceptions.DatasetNotFoundError("gone"), "neither a file or folder nor a data set of the hub"),
        (ConnectionError("no route"), r"\(no route\): if it is one: download"),
        (ValueError("Config name is missing.\nPlease pick one"), r"\(Config name is missing\.\)"),
    ):

        def load(hub_id: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load)
        with pytest.raises(UserError, match=says):
            open_source("someone/photos", size=16)


def test_a_mistyped_path_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    monkeypatch.chdir(fill(tmp_path, {"photos/cats/1.png": noise_png(1)}))
    for name in ("photos/cat", "./photos/cat", "cats", "photo/cats.zip", str(tmp_path / "photos" / "cat")):
        assert not is_elsewhere(name)
        with pytest.raises(UserError, match="no such file or folder"):
            open_source(name, size=16)
    assert no_network == []


def test_the_packages_are_named_when_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set([noise_png(0)]).save_to_disk(tmp_path / "saved")
    fill(tmp_path, {"a.parquet": "PAR1"})
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for data in (tmp_path / "saved", "someone/photos", tmp_path / "a.parquet"):
        with pytest.raises(UserError, match=r"pip install 'calotype\[data\]'"):
            open_source(data, size=16)
    assert hub_dataset.is_saved(tmp_path / "saved")
