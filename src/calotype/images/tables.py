"""Arrow tables of pictures, from Parquet files and Hugging Face data sets: which columns, and what their cells say.

A picture's cell is its bytes, or Hugging Face's struct {bytes, path}. Columns are known by their names (image, text,
label, and a few others); whole-number labels get their names where the table's Hugging Face features hold them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.images.decode import MAX_BYTES, UnreadablePictureError
from calotype.images.folder import read_file
from calotype.images.metadata import LABEL_NAMES, TEXT_NAMES
from calotype.images.rows import Said, nothing

_PICTURES = ("image", "img", "picture", "jpg", "png", "webp", "jpeg", "bytes")
_TEXTS = (*TEXT_NAMES, "txt")


def pyarrow() -> Any:
    """The package, or UserError that says how to get it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError("reading Parquet needs the package pyarrow", "pip install 'calotype[data]'") from None
    return pyarrow


@dataclass(frozen=True)
class Columns:
    """The names of the columns, None for one that is not there; `classes` are the names of whole-number labels."""

    picture: str
    text: str | None
    label: str | None
    classes: Sequence[str] = ()

    @property
    def words(self) -> list[str]:
        return [name for name in (self.text, self.label) if name is not None]


def choose_columns(schema: Any, where: str) -> Columns:
    """Raises UserError where no column, or more than one of equal right, holds pictures."""
    types = pyarrow().types
    if len(set(schema.names)) < len(schema.names):
        raise UserError(f"{where}: two columns have the same name", "rename one of them")
    holding = [field.name for field in schema if _holds_pictures(types, field.type)]
    picture = next((name for name in _PICTURES if name in holding), None) or (holding[0] if len(holding) == 1 else None)
    if picture is None:
        kinds = ", ".join(f"{field.name} ({str(field.type)[:40]})" for field in list(schema)[:8])
        raise UserError(
            f"{where}: no column of pictures among {kinds or 'none at all'}",
            "name one image, with each picture file's bytes or Hugging Face's {bytes, path} in it",
        )

    def first(names: Sequence[str], fits: Callable[[Any], bool]) -> str | None:
        return next((name for name in names if name in schema.names and fits(schema.field(name).type)), None)

    def is_text(kind: Any) -> bool:
        inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
        return bool(types.is_string(inner) or types.is_large_string(inner))

    def is_label(kind: Any) -> bool:
        inner = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_integer(inner) or types.is_string(inner) or types.is_large_string(inner))

    label = first(LABEL_NAMES, is_label)
    return Columns(picture, first(_TEXTS, is_text), label, _class_names(schema, label))


def _holds_pictures(types: Any, kind: Any) -> bool:
    if types.is_struct(kind):
        return any(
            kind.field(i).name == "bytes" and _is_binary(types, kind.field(i).type) for i in range(kind.num_fields)
        )
    return _is_binary(types, kind)


def _is_binary(types: Any, kind: Any) -> bool:
    # a column of empty cells is written with the type null: all of them by path
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind))


def _class_names(schema: Any, label: str | None) -> tuple[str, ...]:
    """The names that Hugging Face's features, kept in the table's metadata, give to the label's numbers."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def said_by(table: Any, columns: Columns) -> tuple[Said, Said]:
    """The caption and the label of a row of `table`, as functions of its number."""
    return (
        nothing if columns.text is None else _words(table[columns.text]),
        nothing if columns.label is None else _words(table[columns.label], columns.classes),
    )


def _words(column: Any, classes: Sequence[str] = ()) -> Said:
    """What each cell of a column says, white space collapsed; the first of a list; a class by its name."""

    def word(row: int) -> str | None:
        try:
            value = column[row].as_py()
        except UnicodeDecodeError:  # damaged; Arrow does not look until it is asked
            return None
        while isinstance(value, list):
            value = value[0] if value else None
        if value is None or (isinstance(value, int) and value < 0):  # Hugging Face writes -1 for "unlabelled"
            return None
        if isinstance(value, int) and value < len(classes):
            value = classes[value]
        return " ".join(str(value).split()) or None

    return word


def picture_bytes(cell: Any, folder: Path) -> bytes:
    """The picture file in a cell, or the one it names by a path, relative to `folder`."""
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        raise UnreadablePictureError("the path beside it is damaged") from None
    said = value if isinstance(value, dict) else {"bytes": value}
    content, path = said.get("bytes"), said.get("path")
    if isinstance(content, bytes):
        if len(content) > MAX_BYTES:
            raise UnreadablePictureError(f"larger than {MAX_BYTES >> 20} MiB")
        return content
    if not isinstance(path, str):
        raise UnreadablePictureError("no picture in this row")
    if not (folder / path).is_file():  # a pipe or device would block the reader
        raise UnreadablePictureError(f"the file it names is not there: {path}")
    return read_file(folder / path)
