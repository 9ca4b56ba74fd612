"""What the autoencoder does to pictures, and what noise does to their latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from calotype.images.pixels import to_float
from calotype.images.similarity import psnr
from calotype.inspection.report import gallery
from calotype.inspection.report.drawing import Model, drowned, encode, rebuilt
from calotype.inspection.report.made import FIRST_SEED, HELD_OUT_SHOWN
from calotype.inspection.report.page import Plate, Section, mount, mounts, section, strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calotype.images.dataset import PictureSet


def what_the_latent_keeps(model: Model, pictures: PictureSet) -> Section:
    """Originals and reconstructions, of held-out pictures where there are any."""
    held = pictures.held_out_ids.tolist()
    ids = gallery.spread(pictures, held or pictures.train_ids.tolist(), HELD_OUT_SHOWN)
    kind = "held-out pictures" if held else "training pictures (none are held out)"
    shape = " × ".join(str(n) for n in latent_shape(model, pictures))
    words = (
        f"The autoencoder alone, on {kind}. Left: the original. Right: what is left of it after a latent of {shape} "
        "numbers. The denoiser cannot draw finer than this."
    )
    return section("What the latent keeps", words, mounts(map(mount, reconstruction_pairs(model, pictures, ids))))


def latent_shape(model: Model, pictures: PictureSet) -> tuple[int, ...]:
    """(c, h, w) of this model's latents."""
    return tuple(encode(model, pictures.pixels[:1]).shape[1:])


def reconstruction_pairs(model: Model, pictures: PictureSet, ids: Sequence[int]) -> list[tuple[Plate, Plate]]:
    """Originals and what the autoencoder gives back; the caption is PSNR of that picture."""
    originals = to_float(pictures.pixels[list(ids)])
    again = rebuilt(model, pictures.pixels[list(ids)])
    scores, names = psnr(again, originals).tolist(), [gallery.name_of(pictures, i) for i in ids]
    return [
        (
            gallery.plate(originals[k], f"Original: {name}", f"{scores[k]:.1f} dB"),
            gallery.plate(again[k], f"Through the autoencoder: {name}, {scores[k]:.1f} decibels"),
        )
        for k, name in enumerate(names)
    ]


def into_noise(model: Model, pixels: Tensor) -> str:
    """The way into noise, which training shows the model, as a strip."""
    images, rates = drowned(model, pixels, FIRST_SEED)
    plates = [
        gallery.plate(image, f"Signal rate {signal:.2f}, noise rate {noise:.2f}", f"{signal:.2f}, {noise:.2f}")
        for image, (signal, noise) in zip(images, rates, strict=True)
    ]
    words = "Training drowns a picture's latent in noise; below each one, how much is signal and how much noise."
    return f"<p>{words}</p>\n{strip(plates, 'A picture drowning in noise')}"
