"""Parquet files: their columns, class names and splits; a broken part of one costs its own pictures."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.core.errors import UserError
from calotype.images import UnreadablePictureError, open_source, parquet
from tests.images.making import fill, noise_png


def write(path: Path, columns: dict[str, Any], *, group: int = 4, features: Any = None, packed: str = "none") -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group, write_batch_size=8, compression=packed)
    return path


def structs(pictures: list[bytes | None], paths: list[str | None] | None = None) -> pa.Array:
    rows = [{"bytes": content, "path": path} for content, path in zip(pictures, paths or [None] * len(pictures))]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def noises(count: int) -> list[bytes]:
    return [noise_png(seed, 8) for seed in range(count)]


@pytest.mark.parametrize("kind", ["structs", "bytes", "large"])
def test_rows_in_order_with_captions_and_class_names(tmp_path: Path, kind: str) -> None:
    pictures = noises(10)
    image = {"structs": structs, "bytes": pa.array, "large": lambda p: pa.array(p, pa.large_binary())}[kind](pictures)
    columns = {"image": image, "caption": [f" number\n{i} " for i in range(9)] + [None], "label": [0, 1, -1, 1, 7] * 2}
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    source = open_source(write(tmp_path / "set.parquet", columns, features=features), size=16)
    assert [picture.read() for picture in source.pictures] == pictures
    assert [picture.caption for picture in source.pictures] == [*(f"number {i}" for i in range(9)), None]
    assert [picture.label for picture in source.pictures[:5]] == ["cat", "dog", None, "dog", "7"]
    assert source.pictures[-1].name == "9"
    assert {picture.split for picture in source.pictures} == {None}


def test_a_folder_of_files_and_a_pattern(tmp_path: Path) -> None:
    for i, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        write(tmp_path / "data" / f"{name}.parquet", {"img": noises(3)[i : i + 1], "text": [[f"c{i}", "other"]]})
    fill(tmp_path, {"README.md": "x"})
    source = open_source(tmp_path, size=16)
    assert [(p.name, p.caption, p.split) for p in source.pictures] == [
        ("test-00000-of-00001.parquet/0", "c2", "held-out"),
        ("train-00000-of-00002.parquet/0", "c0", "train"),
        ("train-00001-of-00002.parquet/0", "c1", "train"),
    ]
    some = open_source(str(tmp_path / "data" / "train-{00000..00001}-*.parquet"), size=16)
    assert [picture.caption for picture in some.pictures] == ["c0", "c1"]
    with pytest.raises(UserError, match=r"train-00002-\*\.parquet: no such file"):
        open_source(str(tmp_path / "data" / "train-{00000..00002}-*.parquet"), size=16)


def test_pictures_named_by_a_path(tmp_path: Path) -> None:
    fill(tmp_path, {"photos/1.png": noise_png(1)})
    paths: list[str | None] = ["photos/1.png", "photos/gone.png", None, "/dev/zero"]
    source = open_source(write(tmp_path / "set.parquet", {"image": structs([None] * 4, paths)}), size=16)
    assert source.pictures[0].read() == noise_png(1)
    for picture, reason in zip(source.pictures[1:], ["not there: photos/gone", "no picture", "not there: /dev/zero"]):
        with pytest.raises(UnreadablePictureError, match=reason):
            picture.read()


def test_which_column(tmp_path: Path) -> None:
    named = write(tmp_path / "a.parquet", {"mask": [b"m"], "image": [b"i"], "label": [1.5]})
    assert [(p.read(), p.label) for p in open_source(named, size=16).pictures] == [(b"i", None)]
    only = write(tmp_path / "b.parquet", {"scan": [b"s"], "text": ["t"]})
    assert [(p.read(), p.caption) for p in open_source(only, size=16).pictures] == [(b"s", "t")]
    for columns in ({"a": [b"1"], "b": [b"2"]}, {"image": ["https://example.org/1.png"]}):
        with pytest.raises(UserError, match=r"no column of pictures among (a \(binary\), b|image \(string\))"):
            open_source(write(tmp_path / "c.parquet", columns), size=16)
    twice = pa.Table.from_arrays([pa.array([b"1"]), pa.array(["a"]), pa.array(["b"])], names=["image", "text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="two columns have the same name"):
        open_source(tmp_path / "twice.parquet", size=16)
    with pytest.raises(UserError, match="no rows"):
        open_source(write(tmp_path / "d.parquet", {"image": pa.array([], pa.binary())}), size=16)


@pytest.mark.parametrize("rows", [1, 3, 32])
def test_any_order_and_from_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Rows that went by, rows far ahead, and four threads at once: each gets its own."""
    monkeypatch.setattr(parquet, "_BATCH", rows)
    monkeypatch.setattr(parquet, "_KEPT_ROWS", 4)
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 60)
    pictures = [b"picture %d" % i for i in range(60)]
    source = open_source(write(tmp_path / "set.parquet", {"image": pictures}, group=25), size=16)
    order = [*range(0, 60, 7), 59, 0, 24, 25, 26, *range(59, -1, -1), *range(60)]
    assert [source.pictures[i].read() for i in order] == [pictures[i] for i in order]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: source.pictures[i].read(), range(60))) == pictures


def test_reading_in_order_opens_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 0)
    source = open_source(write(tmp_path / "set.parquet", {"image": noises(60)}, group=20), size=16)
    opened = []
    start = parquet._Place._from_the_start
    monkeypatch.setattr(parquet._Place, "_from_the_start", lambda place: opened.append(place) or start(place))
    nearly = [i ^ 1 for i in range(60)]  # 1 0 3 2 ...: as two threads ask
    for i in nearly:
        source.pictures[i].read()
    assert len(opened) == 3


@pytest.mark.parametrize("group", [40, 480])
def test_what_went_by_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """Row groups of 4 MB, or one of 48: those that are not open any more, and rows long gone by, are gone."""
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 0)
    random = np.random.default_rng(0)
    path = write(tmp_path / "set.parquet", {"image": [random.bytes(100_000) for _ in range(480)]}, group=group)
    pictures = open_source(path, size=16).pictures
    before = pa.total_allocated_bytes()
    gc.disable()  # nothing may wait for it
    try:
        most = max(len(picture.read()) and pa.total_allocated_bytes() - before for picture in pictures)
    finally:
        gc.enable()
    assert 1_000_000 < most < 32_000_000


def test_a_broken_row_group_costs_its_own_pictures(tmp_path: Path) -> None:
    pictures = noises(12)
    path = write(tmp_path / "set.parquet", {"image": pictures, "text": ["a"] * 12})
    content = bytearray(path.read_bytes())
    page = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    content[page : page + 12] = b"\xff" * 12
    path.write_bytes(content)
    found = open_source(path, size=16).pictures
    for i in (0, 3, 8, 11):
        assert found[i].read() == pictures[i]
    for i in (4, 7, 5):
        with pytest.raises(UnreadablePictureError, match="its part of the Parquet file cannot be read"):
            found[i].read()


def test_damaged_letters_cost_one_caption(tmp_path: Path) -> None:
    image = structs(noises(2), ["first.png", "other.png"])
    path = write(tmp_path / "set.parquet", {"image": image, "text": ["first words", "other words"]})
    path.write_bytes(path.read_bytes().replace(b"first", b"\xf4irst"))
    first, other = open_source(path, size=16).pictures
    assert (first.caption, other.caption) == (None, "other words")
    assert other.read() == noises(2)[1]
    with pytest.raises(UnreadablePictureError, match="the path beside it is damaged"):
        first.read()


def test_truncated_and_other_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "set.parquet", {"image": noises(4)}).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:4], b"", b"nothing of the kind"):
        (tmp_path / "set.parquet").write_bytes(content)
        with pytest.raises(UserError, match="not a whole Parquet file"):
            open_source(tmp_path / "set.parquet", size=16)


def test_what_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from calotype.images.archive import Limits

    path = write(tmp_path / "set.parquet", {"image": [bytes(2**22), bytes(2**22 + 1)]}, packed="zstd")
    assert len(open_source(path, size=16).pictures) == 2  # small in absolute terms
    monkeypatch.setattr(parquet, "LIMITS", Limits(ratio=10, always_allowed=2**20))
    with pytest.raises(UserError, match="unpacks to more than"):
        open_source(path, size=16)


def test_a_huge_cell_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.images.tables.MAX_BYTES", 1000)
    first, second = open_source(write(tmp_path / "a.parquet", {"image": [bytes(2000), b"x"]}), size=16).pictures
    with pytest.raises(UnreadablePictureError, match="larger than"):
        first.read()
    assert second.read() == b"x"


def test_pictures_beside_parquet_files_win_and_say_so(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "set.parquet", {"image": noises(2)})
    fill(tmp_path, {"1.png": noise_png(1)})
    source = open_source(tmp_path, size=16)
    assert [picture.name for picture in source.pictures] == ["1.png"]
    assert source.notes == ("1 archives or .parquet files among the pictures are passed over: sub/set.parquet",)
