"""The text encoders by name; an encoder's own packages are imported only when it is loaded."""

from __future__ import annotations

from collections.abc import Callable

from calotype.core.errors import UserError, nearest
from calotype.core.types import TextEncoder


def _minilm() -> TextEncoder:
    from calotype.text.minilm import MiniLM

    return MiniLM()


TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {"minilm": _minilm}


def load_text_encoder(name: str = "minilm") -> TextEncoder:
    """The encoder called `name`, ready to encode; UserError for an unknown name or a missing extra."""
    if name not in TEXT_ENCODERS:
        raise UserError(f"no text encoder '{name}'", nearest(name, TEXT_ENCODERS))
    return TEXT_ENCODERS[name]()
