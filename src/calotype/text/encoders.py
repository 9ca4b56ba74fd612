"""The text encoders: packaged ones by name, all others by folder or hub id. Loading one imports its packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from calotype.core.errors import UserError, nearest
from calotype.core.types import TextEncoder


def _minilm() -> TextEncoder:
    from calotype.text.minilm import MiniLM

    return MiniLM()


TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {"minilm": _minilm}


def load_text_encoder(name: str = "minilm") -> TextEncoder:
    """The encoder called `name`, else that of a folder or of a hub id (owner/name), ready to encode.

    UserError for an unknown name, a missing extra, or an encoder that is neither here nor to be had.
    """
    if name in TEXT_ENCODERS:
        return TEXT_ENCODERS[name]()
    _check_place(name)
    from calotype.text.huggingface import HuggingFaceEncoder

    return HuggingFaceEncoder(name)


def encoder_fingerprint(name: str) -> str:
    """The fingerprint of `load_text_encoder(name)`, read from its files without loading it."""
    if name == "minilm":
        from calotype.text.minilm import MODEL_SHA256

        return MODEL_SHA256
    _check_place(name)
    from calotype.text.huggingface import fingerprint

    return fingerprint(name)


def _check_place(name: str) -> None:
    """A bare word that is no folder is a misspelt name, not a place."""
    if "/" not in name and not Path(name).expanduser().exists():
        raise UserError(f"no text encoder '{name}'", f"{nearest(name, TEXT_ENCODERS)}, or give a folder or a hub id")
