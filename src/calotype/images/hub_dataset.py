"""Data sets of the Hugging Face hub, or saved by its library: that reads the rows, pictures are decoded here.

The library's own decoding is never asked for: one broken picture would raise in the middle of a loop over them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError
from calotype.images.decode import UnreadablePictureError
from calotype.images.patterns import splits_of
from calotype.images.rows import Part, Rows
from calotype.images.source import Source, Split
from calotype.images.tables import choose_columns, picture_bytes, said_by


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def saved_source(folder: Path) -> Source:
    """The rows of a folder that `save_to_disk` wrote; nothing is asked of a network."""
    library = _library()
    try:
        return _source(library.load_from_disk(str(folder)), str(folder), folder)
    except UserError:
        raise
    except Exception as error:  # the library, Arrow and JSON each have their own
        raise UserError(f"{folder}: not a whole saved data set ({_line(error)})", "save or copy it again") from error


def hub_source(hub_id: str) -> Source:
    """The rows of the hub's data set `owner/name`: downloaded once into the library's cache, then read from there."""
    library = _library()
    page = f"{library.config.HF_ENDPOINT}/datasets/{hub_id}"
    with _untold(library, hub_id) as answers:
        try:
            return _source(library.load_dataset(hub_id), hub_id, Path())
        except UserError:
            raise
        except library.exceptions.DatasetNotFoundError:
            raise UserError(
                f"'{hub_id}' is neither a file or folder nor a data set of the hub that is open to you",
                f"check the name; if {page} asks for it, agree there, then: hf auth login",
            ) from None
        except Exception as error:  # the hub's HTTP library, and so its errors, differ between releases
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = _line(error) if answers else "the hub does not answer"
            raise UserError(
                f"'{hub_id}' is neither a file or folder here, nor could the hub's data set be read ({reason})",
                f"if it is one: download the files of {page} into a folder and give that",
            ) from None


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("data sets of Hugging Face need the package datasets", "pip install 'calotype[data]'") from None
    return datasets


@contextmanager
def _untold(library: Any, hub_id: str) -> Iterator[bool]:
    """Keep the library from counting the download and from telling what it runs under; yields if the hub answers.

    Without a network it is told so: else it asks six times in half a minute before it looks into its cache. The
    settings are restored afterwards.
    """
    from huggingface_hub import constants

    counts = library.config, "HF_UPDATE_DOWNLOAD_COUNTS"
    telemetry = constants, "HF_HUB_DISABLE_TELEMETRY"
    offline = [(module, "HF_HUB_OFFLINE") for module in (library.config, constants)]
    before = [(module, name, getattr(module, name)) for module, name in (counts, telemetry, *offline)]
    try:
        setattr(*counts, False)
        setattr(*telemetry, True)
        answers = _answers(hub_id)
        if not answers:
            for place in offline:
                setattr(*place, True)
        yield answers
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _answers(hub_id: str) -> bool:
    """Whether the hub says anything at all of this id."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(hub_id, timeout=10)
    except HfHubHTTPError:  # also "no such data set"
        return True
    except Exception:  # the HTTP library's own
        return False
    return True


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]


def _source(found: Any, where: str, folder: Path) -> Source:
    """The rows of all splits; those called train, test or validation say on which side a picture is."""
    tables: dict[str, Any] = dict(found) if isinstance(found, dict) else {"": found}
    splits = dict(zip(tables, splits_of(list(tables)) or ()))
    parts = [_part(table, name, splits.get(name), where, folder) for name, table in tables.items()]
    rows = Rows(parts)
    if not rows:
        raise UserError(f"{where}: no rows in it", "check that it is the data that was meant")
    info = next(iter(tables.values())).info
    return Source(where, rows, attribution=info.homepage or "", licence=info.license or "")


def _part(table: Any, name: str, split: Split | None, where: str, folder: Path) -> Part:
    arrow = table.with_format("arrow")
    columns = choose_columns(table.features.arrow_schema, where)
    for column in (columns.picture, *columns.words):
        table.data.column(column).validate(full=True)  # Arrow trusts offsets in a file: wrong ones end the process
    words = arrow.select_columns(columns.words)[:] if columns.words else None
    read = partial(_read, arrow.select_columns([columns.picture]), folder)
    return Part(name, len(table), read, *said_by(words, columns), split)


def _read(table: Any, folder: Path, row: int) -> bytes:
    try:
        cell = table[row].column(0)[0]
    except Exception as error:  # whatever Arrow finds wrong with a damaged file
        raise UnreadablePictureError(f"its row cannot be read: {_line(error)}") from error
    return picture_bytes(cell, folder)
