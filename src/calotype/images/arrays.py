"""Arrays of pictures: .npy, .npz, or given from Python. What a row looks like follows from shape, type and range."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from calotype.core.errors import UserError
from calotype.images.archive import LIMITS
from calotype.images.decode import UnreadablePictureError
from calotype.images.metadata import LABEL_NAMES, TEXT_NAMES
from calotype.images.rows import Part, Rows, Said, nothing
from calotype.images.source import Source

_PICTURES = ("images", "image", "pictures", "x", "x_train", "arr_0")
_CAPTIONS = ("captions", "texts", "prompts", *TEXT_NAMES)
_LABELS = ("labels", "classes", "y", "y_train", *LABEL_NAMES)
_LABEL_NAMES = ("label_names", "class_names")
_CHANNELS = (1, 3, 4)
_LOOKED_AT = 1024
_OVERSHOOT = 0.05  # of the range: resampled floats reach a little beyond it
_SHAPES = "give (n, h, w), (n, h, w, channels) or (n, channels, h, w), with 1, 3 or 4 channels"

Array = NDArray[Any]


def array_source(
    images: ArrayLike,
    *,
    captions: Sequence[str | None] | None = None,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] = (),
    name: str = "",
) -> Source:
    """Pictures (n, h, w) or (n, h, w, channels) or (n, channels, h, w), whole numbers or floats.

    Black and white are the ends of the smallest of 0 to 1, 0 to 255, 0 to 65535 that holds the values, or -1 to 1 where
    some are negative; a note says so for anything but bytes. Raises UserError for what is no array of pictures.
    """
    array = _as_array(images)
    name = name or array_name(array)
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: values of type {array.dtype}, not numbers", "give uint8, uint16 or floats")
    channels_first = array.ndim == 4 and array.shape[3] not in _CHANNELS
    odd = array.shape[1] if channels_first else array.shape[-1] if array.ndim == 4 else 1
    if array.ndim not in (3, 4) or odd not in _CHANNELS or 0 in array.shape:
        raise UserError(f"{name}: the shape {array.shape} is not that of pictures", _SHAPES)
    low, high = _range(array, name)
    known = np.asarray(() if labels is None else labels).reshape(-1)
    for what, given in (("captions", captions), ("labels", None if labels is None else known)):
        if given is not None and len(given) != len(array):
            raise UserError(f"{name}: {len(given)} {what} for {len(array)} pictures", "give one for each")
    said = _said(captions) if captions is not None else nothing
    read = partial(_read, array, channels_first, low, high)
    part = Part("", len(array), read, said, nothing if labels is None else _labels(known, label_names))
    notes = (f"{array.dtype} values: {low:g} is black, {high:g} is white",) if array.dtype != np.uint8 else ()
    return Source(name, Rows([part]), notes=notes)


def array_name(images: ArrayLike) -> str:
    """What an array without a name is called."""
    array = _as_array(images)
    return f"array of {' x '.join(map(str, array.shape))}, {array.dtype}"


def _as_array(images: ArrayLike) -> Array:
    try:
        return np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:  # of several shapes, or on a device
        reason = str(error).partition("\n")[0]
        raise UserError(f"a {type(images).__name__} that is no array of pictures ({reason})", _SHAPES) from error


def array_file_source(path: Path) -> Source:
    """The pictures of a .npy file, or of a .npz with `images` and perhaps `labels`, `captions`, `label_names`.

    Raises UserError for a broken file, or one that holds Python objects: those are not loaded.
    """
    try:
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return array_source(_mapped(file), name=str(path))
        return _from_npz(path)
    except UserError:
        raise
    except Exception as error:  # numpy, zip and the parser of headers raise nearly anything on damaged bytes
        reason = "it holds Python objects" if "bject" in str(error) else str(error).partition("\n")[0]
        mend = "save plain arrays of numbers (and captions as an array of str) with numpy.save or numpy.savez"
        raise UserError(f"{path}: cannot be read as numpy arrays ({reason})", mend) from error


def _from_npz(path: Path) -> Source:
    with zipfile.ZipFile(path) as archive:
        LIMITS.check(sum(member.file_size for member in archive.infolist()), path.stat().st_size, str(path))
        names = [name.removesuffix(".npy") for name in archive.namelist()]

        def first(wanted: Sequence[str]) -> Array | None:
            name = next((name for name in wanted if name in names), None)
            return None if name is None else _member(archive, name)

        images = first(_PICTURES if len(names) > 1 else names)
        if images is None:
            raise UserError(f"{path}: no pictures among its arrays {', '.join(names)}", "call that array images")
        captions, labels, label_names = first(_CAPTIONS), first(_LABELS), first(_LABEL_NAMES)
    return array_source(
        images,
        captions=None if captions is None else [*map(str, captions.astype(str))],
        labels=labels,
        label_names=() if label_names is None else [*map(str, label_names.astype(str))],
        name=str(path),
    )


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    """One array, by way of an unnamed temporary file: it may be larger than the memory."""
    with archive.open(f"{name}.npy") as packed, tempfile.TemporaryFile(prefix="calotype-") as file:
        shutil.copyfileobj(packed, file, 2**20)
        file.seek(0)
        return _mapped(file)


def _mapped(file: IO[bytes]) -> Array:
    """The array in a .npy file, mapped rather than read. ValueError where it is broken, or of Python objects."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("objects")
    if 0 in shape or shape == ():
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", offset=file.tell(), shape=shape, order="F" if fortran else "C")


def _range(array: Array, name: str) -> tuple[float, float]:
    """Black and white, from pictures evenly spaced over the set."""
    if array.dtype == np.bool_:
        return 0.0, 1.0
    low, high = np.inf, -np.inf
    for picture in array[:: -(-len(array) // _LOOKED_AT)]:
        values = picture[np.isfinite(picture)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    slack = _OVERSHOOT if array.dtype.kind == "f" else 0.0
    if array.dtype.kind == "f" and low < -slack and low >= -1 - slack and high <= 1 + slack:
        return -1.0, 1.0
    for top in (1.0, 255.0, 65535.0):
        if low >= -slack * top and 0 <= high <= (1 + slack) * top and -low <= high:
            return 0.0, top
    raise UserError(f"{name}: values from {low:g} to {high:g}", "scale them: 0 to 1, -1 to 1, 0 to 255 or 0 to 65535")


def _read(array: Array, channels_first: bool, low: float, high: float, row: int) -> bytes:
    """One picture as a PPM, PGM or PNG file of 8 bits."""
    picture = np.asarray(array[row])
    if array.dtype != np.uint8 or high != 255.0:
        values = (picture.astype(np.float32) - low) / (high - low)
        if not np.isfinite(values).all() or values.min() < -_OVERSHOOT or values.max() > 1 + _OVERSHOOT:
            raise UnreadablePictureError(f"values that are not finite, or not between {low:g} and {high:g}")
        picture = (values * 255).round().clip(0, 255).astype(np.uint8)
    if channels_first:
        picture = picture.transpose(1, 2, 0)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.save(content, "PNG", compress_level=0) if image.mode == "RGBA" else image.save(content, "PPM")
    return content.getvalue()


def _said(captions: Sequence[str | None]) -> Said:
    def caption(row: int) -> str | None:
        said = captions[row]
        return None if said is None else " ".join(str(said).split()) or None

    return caption


def _labels(labels: Array, names: Sequence[str]) -> Said:
    def label(row: int) -> str | None:
        value = labels[row]
        if value is None:
            return None
        if isinstance(value, np.integer) and 0 <= value < len(names):
            return names[int(value)]
        return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)) or None

    return label
