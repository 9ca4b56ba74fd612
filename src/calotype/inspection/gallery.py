"""The pictures of the report: which prompts to show, what the model makes of them, and the way there."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from calotype.core.random import seeded_noise
from calotype.images.pixels import to_float, to_uint8
from calotype.images.similarity import psnr
from calotype.inspection.page import Plate
from calotype.process import add_noise

if TYPE_CHECKING:
    from PIL.Image import Image

    from calotype.images.dataset import PictureSet

LARGEST_SIDE = 192
"""Pictures are embedded no larger than this: twice what a wide screen shows them at."""
LOSSLESS_BYTES = 14_000
"""A picture whose PNG is larger is embedded as JPEG (quality 92), so that a page stays below 4 MB."""
STRIP_FRAMES = 9
NUM_STEPS = 20
SAMPLER = "dpm++2m"


class Model(Protocol):
    """What the report asks of a model; `calotype.load` returns one."""

    classes: list[str]
    facts: dict[str, Any]
    device: torch.device

    @property
    def captioned(self) -> bool: ...

    @property
    def process(self) -> Any: ...

    def sample(self, *args: Any, **settings: Any) -> list[Image]: ...

    def stream(self, *args: Any, **settings: Any) -> Iterator[Any]: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...


def data_uri(image: Image, largest_side: int = LARGEST_SIDE) -> str:
    """The picture as a data URI: PNG where that is small, else JPEG without chroma subsampling."""
    if max(image.size) > largest_side:
        image = image.copy()
        image.thumbnail((largest_side, largest_side))
    image = image.convert("RGB")
    content, kind = _encoded(image, "PNG", optimize=True), "png"
    if len(content) > LOSSLESS_BYTES:
        content, kind = _encoded(image, "JPEG", quality=92, subsampling=0), "jpeg"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _encoded(image: Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def as_picture(pixels: Tensor) -> Image:
    """uint8 (3, h, w), or float in [-1, 1] -> PIL."""
    from PIL import Image

    pixels = pixels if pixels.dtype == torch.uint8 else to_uint8(pixels.detach().float().cpu())
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def showcase_ids(pictures: PictureSet, wanted: Sequence[str], count: int) -> list[int]:
    """Training pictures to show, one a caption: the `wanted` captions when the set has them, else an even choice."""
    ids = _first_of_each(pictures, pictures.train_ids)
    known = [ids[caption] for caption in wanted if caption in ids]
    return known[:count] if len(known) >= min(count, len(wanted)) > 0 else spread(pictures, list(ids.values()), count)


def held_out_ids(pictures: PictureSet, count: int) -> tuple[list[int], bool]:
    """Held-out pictures, one a caption, and whether no training picture bears these captions.

    Captions that training never saw come first; a set whose few captions recur (landscapes) has none, then any serve.
    """
    trained = _first_of_each(pictures, pictures.train_ids)
    every = _first_of_each(pictures, pictures.held_out_ids)
    unseen = [i for caption, i in every.items() if caption not in trained]
    enough = len(unseen) >= min(4, len(every))
    return spread(pictures, unseen if enough else list(every.values()), count), enough


def _first_of_each(pictures: PictureSet, ids: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in (int(i) for i in ids):
        caption = pictures.captions[i]
        if caption:
            found.setdefault(caption, i)
    return found


def spread(pictures: PictureSet, ids: Sequence[int], count: int) -> list[int]:
    """`count` of `ids`, evenly spaced; where pictures have labels, every label in turn."""
    groups: dict[str | None, list[int]] = {}
    for i in ids:
        groups.setdefault(pictures.labels[i], []).append(i)
    share = math.ceil(count / max(len(groups), 1))
    turns = zip_longest(*(_evenly(group, share) for group in groups.values()))
    return [i for i in chain.from_iterable(turns) if i is not None][:count]


def _evenly(ids: Sequence[int], count: int) -> list[int]:
    """`count` elements, first and last among them where more than one is asked for."""
    if len(ids) <= count:
        return list(ids)
    gap = (len(ids) - 1) / max(count - 1, 1)
    return [ids[round(i * gap)] for i in range(count)]


def prompted_pairs(model: Model, pictures: PictureSet, ids: Sequence[int], seed: int) -> list[tuple[Plate, Plate]]:
    """For each picture: what the model makes of its caption, beside the picture itself. Picture k has seed + k."""
    prompts = [str(pictures.captions[i]) for i in ids]
    made = model.sample(prompts, seed=seed, num_steps=NUM_STEPS, sampler=SAMPLER)
    return [
        (
            Plate(data_uri(image), f"Made by the model from the words: {prompt} (seed {seed + k})", prompt),
            Plate(data_uri(as_picture(pictures.pixels[i])), f"The real picture: {prompt}"),
        )
        for k, (image, prompt, i) in enumerate(zip(made, prompts, ids, strict=True))
    ]


def made_sheet(model: Model, count: int, seed: int, label: str | None = None) -> list[Plate]:
    """`count` pictures of one class, or of an unconditional model."""
    labels = None if label is None else [label]
    images = model.sample(labels=labels, num_images=count, seed=seed, num_steps=NUM_STEPS, sampler=SAMPLER)
    what = f"Made by the model: {label}" if label else "Made by the model"
    return [Plate(data_uri(image), f"{what} (seed {seed + k})") for k, image in enumerate(images)]


def real_sheet(pictures: PictureSet, ids: Sequence[int]) -> list[Plate]:
    return [Plate(data_uri(as_picture(pictures.pixels[i])), f"Real picture: {pictures.names[i]}") for i in ids]


@torch.no_grad()
def reconstruction_pairs(model: Model, pictures: PictureSet, ids: Sequence[int]) -> list[tuple[Plate, Plate]]:
    """Originals and what the autoencoder gives back; the caption is PSNR of that picture."""
    originals = to_float(pictures.pixels[list(ids)])
    rebuilt = model.decode(_encode(model, originals)).float().cpu().clamp(-1, 1)
    scores = psnr(rebuilt, originals).tolist()
    names = [pictures.captions[i] or pictures.names[i] for i in ids]
    return [
        (
            Plate(data_uri(as_picture(original)), f"Original: {name}", f"{score:.1f} dB"),
            Plate(data_uri(as_picture(again)), f"Through the autoencoder: {name}, {score:.1f} decibels"),
        )
        for original, again, name, score in zip(originals, rebuilt, names, scores, strict=True)
    ]


def latent_shape(model: Model, pictures: PictureSet) -> tuple[int, ...]:
    """(c, h, w) of this model's latents."""
    return tuple(_encode(model, to_float(pictures.pixels[:1])).shape[1:])


@torch.no_grad()
def _encode(model: Model, images: Tensor) -> Tensor:
    return model.encode(images.to(model.device))


def noise_levels(process: Any, count: int) -> Tensor:
    """`count` rising t from clean to t_max, even in the angle atan(noise_rate / signal_rate), for any process."""
    fine = torch.linspace(0, float(process.t_max), 2001, dtype=torch.float64)[1:]
    angle = torch.atan2(process.noise_rate(fine), process.signal_rate(fine))
    wanted = torch.linspace(0, float(angle[-1]), count, dtype=torch.float64)[1:]
    nearest = (angle[None] - wanted[:, None]).abs().argmin(dim=1)
    return torch.cat([torch.zeros(1, dtype=torch.float64), fine[nearest]])


@torch.no_grad()
def forward_strip(model: Model, pixels: Tensor, seed: int) -> list[Plate]:
    """One picture's latent on its way into noise, decoded at every level (divided by its spread where that is > 1)."""
    x0 = _encode(model, to_float(pixels[None]))
    eps = seeded_noise(torch.tensor([seed]), 0, tuple(x0.shape[1:])).to(x0)
    plates = []
    for level in noise_levels(model.process, STRIP_FRAMES):
        t = level.reshape(1)
        signal, noise = (
            (1.0, 0.0) if level == 0 else (_rate(model.process.signal_rate, t), _rate(model.process.noise_rate, t))
        )
        x_t = x0 if level == 0 else add_noise(model.process, x0, t, eps)
        image = as_picture(model.decode(x_t / max(1.0, math.hypot(signal, noise)))[0].clamp(-1, 1))
        caption = f"{signal:.2f}, {noise:.2f}"
        plates.append(Plate(data_uri(image), f"Signal rate {signal:.2f}, noise rate {noise:.2f}", caption))
    return plates


def _rate(rate: Any, t: Tensor) -> float:
    return float(rate(t).reshape(-1)[0])


@torch.no_grad()
def denoising_strips(model: Model, prompts: list[str] | None, settings: dict[str, Any]) -> dict[str, list[Plate]]:
    """Rows of pictures from noise to the end: "x_t" of the first picture, then "x0_hat 0", "x0_hat 1", ...

    x_t is what the sampler holds at a step, x0_hat what the model then believes the clean picture to be.
    """
    frames = list(model.stream(prompts, num_steps=NUM_STEPS, sampler=SAMPLER, **settings))
    rows: dict[str, list[Plate]] = {"x_t": []}
    for k in _evenly(range(len(frames)), STRIP_FRAMES):
        held, believed = (model.decode(x).float().cpu().clamp(-1, 1) for x in (frames[k].x_t, frames[k].x0_hat))
        caption = f"step {k + 1}"
        rows["x_t"].append(Plate(data_uri(as_picture(held[0])), f"The sampler's picture, {caption}", caption))
        for row, image in enumerate(believed):
            plate = Plate(data_uri(as_picture(image)), f"The model's belief, {caption}", caption)
            rows.setdefault(f"x0_hat {row}", []).append(plate)
    return rows
