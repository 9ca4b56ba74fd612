"""Captions to numbers: the packaged sentence encoder, or any of Hugging Face, behind the `TextEncoder` protocol."""

from calotype.text.batching import encode_all, encode_parts
from calotype.text.encoders import TEXT_ENCODERS, begin_loading, encoder_fingerprint, load_text_encoder
from calotype.text.wording import rewordings

__all__ = [
    "TEXT_ENCODERS",
    "begin_loading",
    "encode_all",
    "encode_parts",
    "encoder_fingerprint",
    "load_text_encoder",
    "rewordings",
]
