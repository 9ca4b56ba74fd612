"""metadata.jsonl and metadata.csv: file_name with text and/or label, one picture a row."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from calotype.core.errors import UserError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
# What captions and labels are called, here and in tables; the first that is there counts.
TEXT_NAMES = ("text", "caption", "prompt")
LABEL_NAMES = ("label", "class", "cls")


class Row(NamedTuple):
    """What the metadata says of one picture."""

    text: str | None
    label: str | None


def read_metadata(name: str, content: bytes) -> list[tuple[str, Row]]:
    """(picture's path, row) of each line; `file_name` is relative to the metadata file `name`.

    Broken lines raise UserError.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not UTF-8 text", "save it as UTF-8") from None
    records = _json_lines(name, text) if name.endswith(".jsonl") else _csv_lines(name, text)
    folder = posixpath.dirname(name)
    rows: list[tuple[str, Row]] = []
    told = False
    for line, record in records:
        file_name = record.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            raise UserError(f"{name}, line {line}: no file_name", "each row names its picture in file_name")
        told |= not record.keys().isdisjoint((*TEXT_NAMES, *LABEL_NAMES))
        path = posixpath.normpath(posixpath.join(folder, file_name.replace("\\", "/")))
        rows.append((path, Row(*(_words(record, keys, name, line) for keys in (TEXT_NAMES, LABEL_NAMES)))))
    if rows and not told:
        raise UserError(f"{name} has neither text nor label", "name the caption column text, the class column label")
    return rows


def _json_lines(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{name}, line {line}: not a JSON object", "write one {...} a line")
        yield line, record


def _csv_lines(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}", "mend that line") from None


def _words(record: dict[str, Any], keys: tuple[str, ...], name: str, line: int) -> str | None:
    """A cell as text, white space collapsed; numbers are taken as written, empty is None."""
    key = next((key for key in keys if record.get(key) is not None), keys[0])
    if not isinstance(record.get(key), str | int | float | None):
        raise UserError(f"{name}, line {line}: {key} is a {type(record[key]).__name__}", "write it as one string")
    return first_of(record, (key,))


def first_of(record: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of these that is text or a number, as text with its white space collapsed."""
    values = (record.get(key) for key in keys)
    told = (value for value in values if isinstance(value, str | int | float) and value == value)  # not NaN
    found = (" ".join(str(value).split()) for value in told)
    return next(filter(None, found), None)
