"""Any Hugging Face text encoder: CLIP (Radford et al. 2021), T5 (Raffel et al. 2020), BERT and its like."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json
from calotype.core.hub import HUB_ID, cached, downloaded
from calotype.core.runtimes import one_line, quiet
from calotype.core.types import TextEmbedding
from calotype.text.batching import CutWarning, by_length

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")
PATTERNS = ["config.json", WEIGHTS, SHARDS, "model-*-of-*.safetensors"]
TOKENIZER_PATTERNS = [*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
MAX_TOKENS = 128  # where the encoder itself reads further: what lies beyond is rarely a caption
Pooling = Literal["mean", "projection", "pooler"]


class HuggingFaceEncoder:
    """Captions -> pooled and per-token vectors of the encoder in a folder, or of an id of the hub (owner/name).

    tokens are its last hidden states. pooled is CLIP's `text_embeds`, where it has a projection, else its
    `pooler_output`; of any other encoder it is sum_i mask_i tokens_i / sum_i mask_i. Everything is float32, on the CPU.
    Only safetensors are read, and no code that comes with the weights is run.
    """

    def __init__(self, name: str) -> None:
        transformers = _transformers(name)
        folder, vocabulary = _find(name)
        self.id = name if HUB_ID.fullmatch(name) and not Path(name).is_dir() else Path(name).expanduser().resolve().name
        self.fingerprint = _fingerprint(folder, vocabulary)
        with one_line(f"text encoder '{name}' cannot be loaded"), quiet(transformers):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            family, self.pooling = _choose(transformers, config, name)
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                vocabulary, local_files_only=True, trust_remote_code=False, use_fast=True
            )
            self.model, report = family.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        missing = [key for key in report["missing_keys"] if not (self.pooling == "mean" and "pooler." in key)]
        if missing:
            raise CorruptFileError(f"{folder} has no weights '{min(missing)}'", "restore its files")
        self.model = self.model.float().eval().requires_grad_(False)
        config = self.model.config  # of the text alone, where the folder's is of pictures too
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise UserError(f"text encoder '{name}' has no fast tokenizer", "save it again with a tokenizer.json")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.token_dim = int(config.hidden_size)
        self.dim = int(config.projection_dim) if self.pooling == "projection" else self.token_dim
        reach = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
        self.max_tokens = int(min(self.tokenizer.model_max_length, reach, MAX_TOKENS))

    def encode(self, captions: list[str]) -> TextEmbedding:
        """Captions (b strings) -> pooled (b, d), tokens (b, n, e), mask (b, n), float32 on the CPU.

        n is the longest caption's number of tokens, its marks included; tokens beyond a caption's end are zero. What
        lies beyond `max_tokens` is not read, with one warning.
        """
        if not captions:
            none = torch.zeros(0, 0, dtype=torch.bool)
            return TextEmbedding(torch.zeros(0, self.dim), torch.zeros(0, 0, self.token_dim), none)
        encodings = self.tokenizer(list(captions), truncation=True, max_length=self.max_tokens).encodings
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut:
            warnings.warn(CutWarning(cut, len(captions), self.max_tokens), stacklevel=2)
        lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        longest = int(lengths.max())
        pooled, tokens = torch.zeros(len(captions), self.dim), torch.zeros(len(captions), longest, self.token_dim)
        for rows in by_length(lengths):
            width = int(lengths[rows].max())
            if width:  # some tokenizers make nothing at all of an empty caption
                pooled[rows], tokens[rows, :width] = self._forward([encodings[row].ids for row in rows], width)
        return TextEmbedding(pooled, tokens, torch.arange(longest) < torch.from_numpy(lengths)[:, None])

    @torch.no_grad()
    def _forward(self, ids: list[list[int]], width: int) -> tuple[Tensor, Tensor]:
        """Token ids of one batch -> pooled (b, d) and states (b, width, e), zero where there is no token."""
        input_ids = torch.full((len(ids), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(ids), width, dtype=torch.int64)
        for row, caption_ids in enumerate(ids):
            input_ids[row, : len(caption_ids)] = torch.tensor(caption_ids)
            mask[row, : len(caption_ids)] = 1
        outputs = self.model(input_ids=input_ids, attention_mask=mask)
        tokens = outputs.last_hidden_state * mask[..., None]
        if self.pooling == "mean":
            return tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1), tokens
        return outputs.text_embeds if self.pooling == "projection" else outputs.pooler_output, tokens


def fingerprint(name: str) -> str:
    """Hex sha256 of the encoder's weights and vocabulary, as `HuggingFaceEncoder.fingerprint`, without loading it."""
    return _fingerprint(*_find(name))


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"text encoder '{name}' needs package '{error.name}'", "pip install 'calotype[hf]'") from None
    return transformers


def _choose(transformers: Any, config: Any, name: str) -> tuple[Any, Pooling]:
    """The class that reads captions alone, and where its pooled vector is."""
    if config.model_type in ("clip", "clip_text_model"):
        if config.architectures == ["CLIPTextModel"]:
            return transformers.CLIPTextModel, "pooler"
        return transformers.CLIPTextModelWithProjection, "projection"
    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding, "mean"  # of T5 the encoder alone
    if config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise UserError(
            f"'{name}' is a {config.model_type}, not an encoder of text alone", "choose a CLIP, T5 or BERT-like encoder"
        )
    return transformers.AutoModel, "mean"


def _find(name: str) -> tuple[Path, Path]:
    """Folders of the weights and of the vocabulary, downloaded if need be."""
    given = Path(name).expanduser()
    if given.is_dir():
        return _whole(given)
    if given.exists() or not HUB_ID.fullmatch(name):
        what = "is a file" if given.exists() else "is neither a folder nor a hub id (owner/name)"
        raise UserError(f"text encoder '{name}' {what}", "give a folder that transformers' save_pretrained wrote")
    try:
        from huggingface_hub import constants  # noqa: F401
    except ImportError:
        raise UserError(f"text encoder '{name}' needs 'huggingface_hub'", "pip install 'calotype[hf]'") from None
    there = cached(name, ["config.json", "text_encoder/config.json"])
    if there is not None and _is_whole(there):
        return _whole(there)
    patterns = [*PATTERNS, *TOKENIZER_PATTERNS]
    patterns += [f"text_encoder/{pattern}" for pattern in PATTERNS]
    patterns += [f"tokenizer/{pattern}" for pattern in TOKENIZER_PATTERNS]
    wanted = f"config.json, {WEIGHTS} and tokenizer.json"
    root = downloaded(name, patterns, wanted)
    if not _is_whole(root) and root == there:  # the hub's client gives the half it has when it reaches nobody
        raise UserError(f"'{name}' is in the hub's cache in part ({root})", f"go online once, or download {wanted}")
    return _whole(root)


def _is_whole(root: Path) -> bool:
    try:
        return bool(_whole(root))
    except UserError:
        return False


def _whole(root: Path) -> tuple[Path, Path]:
    """The folder itself, or `text_encoder` and `tokenizer` of a whole pipeline; UserError where a file is missing."""
    pairs = ((root, root), (root / "text_encoder", root / "tokenizer"))
    folder, vocabulary = next((pair for pair in pairs if (pair[0] / "config.json").is_file()), pairs[0])
    mend = "give a folder that save_pretrained of both model and tokenizer wrote"
    if not (folder / "config.json").is_file():
        raise UserError(f"text encoder {root} has no config.json", mend)
    if not any((vocabulary / file).is_file() for file in VOCABULARIES):
        raise UserError(f"text encoder {vocabulary} has no tokenizer.json", mend)
    weights = _weights(folder)
    if not weights:
        raise UserError(f"text encoder {folder} has no {WEIGHTS}", "only safetensors are read: save it again as such")
    for path in weights:
        if not path.is_file():
            raise CorruptFileError(f"{path} is missing")
    return folder, vocabulary


def _weights(folder: Path) -> list[Path]:
    """The files of the weights: one, or those that an index names."""
    if (folder / WEIGHTS).is_file() or not (folder / SHARDS).is_file():
        return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []
    return [folder / name for name in sorted(set(read_json(folder / SHARDS)["weight_map"].values()))]


def _fingerprint(folder: Path, vocabulary: Path) -> str:
    """sha256 over weights and vocabulary. tokenizer.json alone counts where it is: it says what the others say."""
    known = [vocabulary / name for name in VOCABULARIES if (vocabulary / name).is_file()]
    digest = hashlib.sha256()
    for path in [*_weights(folder), *(known[:1] if known[0].name == "tokenizer.json" else known)]:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
