"""What each training picture is asked to be: captions encoded once, class numbers, both, or nothing."""

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
MUCH = 2**30  # bytes of token states that are worth a word


@dataclass(frozen=True)
class Conditions:
    """One row a picture: `labels` (n,) are classes, `rows` (n,) places of captions in `unique`; -1 is none."""

    null: Tensor
    labels: Tensor | None
    rows: Tensor
    unique: TextEmbedding | None
    classes: list[str]
    facts: dict[str, Any]

    def fill(self, recipe: Recipe) -> Recipe:
        """The recipe with the network's inputs as the data has them."""
        network = recipe.network.for_data(
            in_channels=recipe.vae.network.latent_channels,
            num_classes=len(self.classes),
            text_dim=0 if self.unique is None else self.unique.pooled.shape[1],
            token_dim=0 if self.unique is None else self.unique.tokens.shape[2],
            latent_size=recipe.size // recipe.vae.network.downsampling,
        )
        return recipe.model_copy(update={"network": network})

    def batch(self, ids: Tensor) -> Condition:
        """The condition of pictures `ids` (b,)."""
        labels = None if self.labels is None else self.labels[ids]
        if self.unique is None:
            return Condition(self.null[ids], labels)
        rows = self.rows[ids]
        return Condition(self.null[ids], labels, self.unique[rows.clamp(min=0)], texted=rows >= 0)

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
    """Decide by data and recipe what the model is conditioned on; encode the captions once into the run.

    A picture without a caption has its class alone, one without a class its caption, one without either is null.
    """
    texts, classes = _asked(recipe.condition, pictures)
    rows, numbers = torch.full((len(pictures),), -1), torch.full((len(pictures),), -1)
    facts, unique = _data_facts(pictures, texts), None
    if texts:
        captions = sorted({caption for caption in pictures.captions if caption is not None})
        unique, facts["text_encoder"] = _encode(run, recipe, captions, reporter)
        number = {caption: i for i, caption in enumerate(captions)}
        rows = torch.tensor([-1 if caption is None else number[caption] for caption in pictures.captions])
    if classes:
        number = {name: i for i, name in enumerate(pictures.classes)}
        numbers = torch.tensor([-1 if label is None else number[label] for label in pictures.labels])
        facts["classes"] = pictures.classes
    null = (rows < 0) & (numbers < 0)
    return Conditions(null, numbers if classes else None, rows, unique, list(facts["classes"]), facts)


def _asked(kind: str, pictures: PictureSet) -> tuple[bool, bool]:
    """Whether captions and whether classes are used; "auto" is whatever there is to learn from."""
    if kind == "auto":
        return pictures.has_captions, len(pictures.classes) > 1
    texts, classes = "text" in kind, "label" in kind
    if texts and not pictures.has_captions:
        raise UserError(f"condition = {kind}, but the pictures have no captions", "add metadata.jsonl or .txt files")
    if classes and not pictures.has_labels:
        raise UserError(f"condition = {kind}, but the pictures have no classes", "sort them into one folder a class")
    return texts, classes


def _encode(run: Run, recipe: Recipe, captions: list[str], reporter: Reporter) -> tuple[TextEmbedding, dict[str, Any]]:
    """Embeddings of the distinct captions, from the run if they are there: encoded once, so that resume is exact.

    What is there holds for these captions, this very encoder, and tokens kept or not; else they are encoded anew,
    which a run whose denoiser has learned from the former refuses.
    """
    from calotype.text import encode_all, encoder_fingerprint, load_text_encoder

    folder, tokens = run.captions, recipe.network.text_tokens
    wanted = {"captions": captions, "sha256": encoder_fingerprint(recipe.text_encoder), "tokens": tokens}
    if (folder / MANIFEST).exists():
        verify_folder(folder)
        known = read_json(folder / "captions.json")
        if {key: known.get(key) for key in wanted} == wanted:
            tensors = load_tensors(folder / "text.safetensors")
            return TextEmbedding(tensors["pooled"], tensors["tokens"], tensors["mask"].bool()), known["encoder"]
        if any(run.denoiser.glob("step-*")):
            raise UserError(
                f"{run.folder} was trained with captions of another text encoder",
                "put it back, or choose another --out",
            )
    reporter.stage("captions", f"{len(captions):,} distinct")
    encoder = load_text_encoder(recipe.text_encoder)
    # Token states only for a network that looks at them.
    text = encode_all(encoder, captions, tokens=tokens, progress=reporter.update)
    if text.tokens.nbytes > MUCH:
        reporter.say(f"the captions' token states take {text.tokens.nbytes / 2**30:.1f} GiB of memory")
    described = {
        "id": encoder.id,
        "sha256": encoder.fingerprint,
        "dim": encoder.dim,
        "token_dim": encoder.token_dim,
    }

    def fill(aside: Any) -> None:
        mask = text.mask.to(torch.uint8)
        save_tensors(aside / "text.safetensors", {"pooled": text.pooled, "tokens": text.tokens, "mask": mask})
        write_json(aside / "captions.json", {**wanted, "encoder": described})

    write_folder(folder, fill)
    return text, described


def _data_facts(pictures: PictureSet, captioned: bool) -> dict[str, Any]:
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
