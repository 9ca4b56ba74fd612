"""The text encoders: packaged ones by name, all others by folder or hub id. Loading one imports its packages."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from calotype.core.errors import UserError, nearest
from calotype.core.types import TextEncoder


def _minilm(threads: int | None = None) -> TextEncoder:
    from calotype.text.minilm import MiniLM

    return MiniLM(threads)


TEXT_ENCODERS: dict[str, Callable[..., TextEncoder]] = {"minilm": _minilm}
_begun: dict[str, Future[TextEncoder]] = {}


def begin_loading(name: str) -> None:
    """Make a packaged encoder ready in the background, for few captions; nothing for other names.

    It needs no torch, so a command that draws does this while torch is imported. The next `load_text_encoder(name)`
    waits for it, and raises what it met.
    """
    if name in TEXT_ENCODERS:
        pool = ThreadPoolExecutor(1, thread_name_prefix="text-encoder")
        _begun[name] = pool.submit(TEXT_ENCODERS[name], threads=1)
        pool.shutdown(wait=False)


def load_text_encoder(name: str = "minilm") -> TextEncoder:
    """The encoder called `name`, else that of a folder or of a hub id (owner/name), ready to encode.

    UserError for an unknown name, a missing extra, or an encoder that is neither here nor to be had.
    """
    if begun := _begun.pop(name, None):
        return begun.result()
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
