"""Tiny Hugging Face encoders with random weights, saved as their users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "big", "small", "heart", "cat", "dog"]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer() -> Any:
    """A word a token, between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **marks)


def module(kind: str, seed: int = 0) -> Any:
    """The transformers module, its parameters random."""
    import transformers as t

    marks = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    clip = t.CLIPTextConfig(vocab_size=12, projection_dim=12, max_position_embeddings=8, **SIZES, **marks)
    vision = t.CLIPVisionConfig(image_size=8, patch_size=4, projection_dim=12, **SIZES)
    bert = t.BertConfig(vocab_size=12, max_position_embeddings=32, **SIZES)
    five = t.T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    whole = t.CLIPConfig(text_config=clip.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    makers = {
        "clip-projection": lambda: t.CLIPTextModelWithProjection(clip),
        "clip": lambda: t.CLIPTextModel(clip),
        "clip-whole": lambda: t.CLIPModel(whole),
        "clip-vision": lambda: t.CLIPVisionModel(vision),
        "bert": lambda: t.BertModel(bert),
        "bert-headed": lambda: t.BertForMaskedLM(bert),
        "t5": lambda: t.T5EncoderModel(five),
        "t5-whole": lambda: t.T5ForConditionalGeneration(five),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = makers[kind]().eval()
        for parameter in made.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def save(folder: Path, kind: str = "clip-projection", **options: Any) -> Path:
    """A folder as save_pretrained of model and tokenizer write it."""
    module(kind).save_pretrained(folder, **options)
    tokenizer().save_pretrained(folder)
    return folder
