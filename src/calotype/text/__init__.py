"""Captions to numbers: the packaged sentence encoder behind the `TextEncoder` protocol."""

from calotype.text.encoders import TEXT_ENCODERS, load_text_encoder

__all__ = ["TEXT_ENCODERS", "load_text_encoder"]
