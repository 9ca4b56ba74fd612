"""What each training picture is asked to be: captions encoded once, class numbers, or nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.files import MANIFEST, read_json, verify_folder, write_folder, write_json
from calotype.core.progress import Reporter
from calotype.core.tensors import load_tensors, save_tensors
from calotype.core.types import TextEmbedding
from calotype.images.dataset import PictureSet
from calotype.images.openmoji import SHOWCASE
from calotype.network.conditioning import Condition
from calotype.pipeline.run import Run
from calotype.recipes import Recipe

EXAMPLES = 32  # prompts of the sample sheets


@dataclass(frozen=True)
class Conditions:
    """One row a picture: `rows` (n,) points into `unique`, the distinct captions' embedding; -1 has no caption."""

    null: Tensor
    labels: Tensor | None
    rows: Tensor
    unique: TextEmbedding | None
    classes: list[str]
    facts: dict[str, Any]

    def fill(self, recipe: Recipe) -> Recipe:
        """The recipe with the network's inputs as the data has them."""
        text_dim = 0 if self.unique is None else self.unique.pooled.shape[1]
        latent_size = recipe.size // recipe.vae.network.downsampling
        shape: dict[str, Any] = {
            "in_channels": recipe.vae.network.latent_channels,
            "num_classes": len(self.classes),
            "text_dim": text_dim,
            "map_size": latent_size,
        }
        if not text_dim:
            shape["text_tokens"] = False
        if not text_dim and not self.classes:
            shape["map_channels"] = 0  # nothing to lay out
        return recipe.model_copy(update={"network": recipe.network.model_copy(update=shape)})

    def batch(self, ids: Tensor) -> Condition:
        """The condition of pictures `ids` (b,)."""
        text = None if self.unique is None else self.unique[self.rows[ids].clamp(min=0)]
        return Condition(self.null[ids], None if self.labels is None else self.labels[ids], text)

    def to(self, device: torch.device) -> Conditions:
        moved = None if self.unique is None else self.unique.to(device)
        labels = None if self.labels is None else self.labels.to(device)
        return Conditions(self.null.to(device), labels, self.rows.to(device), moved, self.classes, self.facts)

    def training_text(self, pictures: PictureSet) -> Tensor:
        """Pooled vectors (k, d) of the distinct captions of the training pictures."""
        assert self.unique is not None
        rows = self.rows[pictures.train_ids]
        return self.unique.pooled[rows[rows >= 0].unique()]


def prepare_conditions(run: Run, recipe: Recipe, pictures: PictureSet, reporter: Reporter) -> Conditions:
    """Decide by data and recipe what the model is conditioned on; encode the captions once into the run."""
    kind = recipe.condition
    if kind == "auto":
        kind = "text" if pictures.has_captions else "label" if len(pictures.classes) > 1 else "none"
    if kind == "text" and not pictures.has_captions:
        raise UserError("condition = text, but the pictures have no captions", "add metadata.jsonl or .txt files")
    if kind == "label" and not pictures.has_labels:
        raise UserError("condition = label, but the pictures have no classes", "sort them into one folder a class")
    n = len(pictures)
    nothing, rows = torch.ones(n, dtype=torch.bool), torch.full((n,), -1)
    facts = _data_facts(pictures, kind)
    if kind == "text":
        captions = sorted({caption for caption in pictures.captions if caption is not None})
        unique, encoder = _encode(run, recipe, captions, reporter)
        number = {caption: i for i, caption in enumerate(captions)}
        rows = torch.tensor([-1 if caption is None else number[caption] for caption in pictures.captions])
        facts |= {"text_encoder": encoder}
        return Conditions(rows < 0, None, rows, unique, [], facts)
    if kind == "label":
        numbers = torch.tensor([-1 if x is None else pictures.classes.index(x) for x in pictures.labels])
        facts |= {"classes": pictures.classes}
        return Conditions(numbers < 0, numbers.clamp(min=0), rows, None, pictures.classes, facts)
    return Conditions(nothing, None, rows, None, [], facts)


def _encode(run: Run, recipe: Recipe, captions: list[str], reporter: Reporter) -> tuple[TextEmbedding, dict[str, str]]:
    """Embeddings of the distinct captions, from the run if they are there: encoded once, so that resume is exact."""
    folder = run.captions
    if (folder / MANIFEST).exists():
        verify_folder(folder)
        known = read_json(folder / "captions.json")
        if known["captions"] == captions:
            tensors = load_tensors(folder / "text.safetensors")
            return TextEmbedding(tensors["pooled"], tensors["tokens"], tensors["mask"].bool()), known["encoder"]
    from calotype.text import load_text_encoder

    reporter.stage("captions", f"{len(captions):,} distinct")
    encoder = load_text_encoder(recipe.text_encoder)
    text = encoder.encode(captions)
    if not recipe.network.text_tokens:  # per-token states are large: kept only for a network that looks at them
        text = TextEmbedding(text.pooled, text.tokens[:, :0], text.mask[:, :0])
    described = {"id": encoder.id, "sha256": encoder.fingerprint}

    def fill(aside: Any) -> None:
        mask = text.mask.to(torch.uint8)
        save_tensors(aside / "text.safetensors", {"pooled": text.pooled, "tokens": text.tokens, "mask": mask})
        write_json(aside / "captions.json", {"captions": captions, "encoder": described})

    write_folder(folder, fill)
    return text, described


def _data_facts(pictures: PictureSet, kind: str) -> dict[str, Any]:
    """What the bundle says about the data."""
    train = [pictures.captions[i] for i in pictures.train_ids.tolist()]
    held_out = [pictures.captions[i] for i in pictures.held_out_ids.tolist()]
    data = {
        "source": Path(pictures.source).name,
        "pictures": len(pictures),
        "held_out": len(pictures.held_out_ids),
        "refused": pictures.refused,
        "licence": pictures.licence,
        "attribution": pictures.attribution,
    }
    captioned = kind == "text"
    return {
        "data": data,
        "captioned": captioned,
        "classes": [],
        "examples": _examples(train) if captioned else [],
        "held_out_examples": _examples(held_out)[:16] if captioned else [],
    }


def _examples(captions: list[str | None]) -> list[str]:
    """Prompts that show the model: the showcase where the data has it, else the commonest, else an even choice."""
    counts = Counter(caption for caption in captions if caption)
    if all(prompt in counts for prompt in SHOWCASE):
        return list(SHOWCASE)
    if counts and counts.most_common(1)[0][1] > 1:
        return [caption for caption, _ in counts.most_common(EXAMPLES)]
    distinct = list(counts)
    return distinct[:: max(1, -(-len(distinct) // EXAMPLES))]
