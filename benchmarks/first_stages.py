"""First stages side by side: what each keeps of held-out pictures after the same minutes of the processor.

    python benchmarks/first_stages.py DATA [--size 64] [--minutes 4] [--only NAME ...] [--out FOLDER]

DATA is what `calotype train` takes. Each variant is trained by the library's own loop on the same pictures, one seed,
and reported as held-out PSNR, SSIM, and the kernel and Fréchet distances between held-out pictures and their
reconstructions in the features of EfficientNet-Lite0. Prints a Markdown table; the sheets with the pictures above their
reconstructions go to FOLDER. Published for comparison (LDM, Rombach et al. 2022, f8 with KL, their own data at 256 px):
24.2 dB.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when OpenMP starts, hence before torch

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.progress import Silent
from calotype.evaluation import frechet_distance, kernel_distance
from calotype.features import FeatureExtractor, load_extractor
from calotype.images.dataset import PictureSet, prepare
from calotype.images.pixels import to_float
from calotype.images.similarity import psnr, ssim
from calotype.images.source import open_source
from calotype.latents import FirstStage, build_vae
from calotype.network.unet import count_parameters
from calotype.pipeline import previews
from calotype.recipes import get_recipe
from calotype.recipes.recipe import VAESection
from calotype.training.journal import Journal
from calotype.training.loop import StageRun, train_stage
from calotype.training.metrics import Metrics
from calotype.training.vae_objective import VAEObjective

ADAMW = ["training.optimizer.name=adamw", "training.optimizer.lr=1e-3"]
PIXELS = ["loss.l1_weight=0"]
ALONE = ["loss.adversarial_weight=0"]  # no discriminator
VARIANTS: dict[str, list[str]] = {
    "plain: AutoencoderKL layout, L2 + KL, AdamW": ["network.family=diffusers", *PIXELS, *ADAMW, *ALONE],
    "the same layout, L2 + L1 + KL, Muon": ["network.family=diffusers", *ALONE],
    "fast layout, L2 + KL, AdamW": [*PIXELS, *ADAMW, *ALONE],
    "fast layout, L2 + L1 + KL, Muon": ALONE,
    "the same + multi-scale .5": ["loss.multiscale_weight=0.5", *ALONE],
    "the same + perceptual .1": ["loss.perceptual_weight=0.1", *ALONE],
    "default: the same + adversarial .5": [],
    "default, f4": ["network.patch=2"],
    "default, 8 channels": ["network.latent_channels=8"],
}
MEASURED = 1000  # held-out pictures at most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="variants whose names begin so")
    parser.add_argument("--out", type=Path, default=Path("first-stages"))
    options = parser.parse_args()
    chosen = [name for name in VARIANTS if any(name.startswith(start) for start in options.only)]
    try:
        extractor = load_extractor()
        with TemporaryDirectory() as folder:
            pictures = prepare(open_source(options.data, size=options.size), options.size, Path(folder), Silent())
            ids = pictures.held_out_ids[:MEASURED]
            real = extractor(to_float(pictures.pixels[ids]))
            print(f"{len(ids)} held-out pictures, {options.minutes:g} CPU-minutes each\n")
            print("| first stage | weights | pictures seen | PSNR | SSIM | kernel distance | Fréchet distance |")
            print("|---|---|---|---|---|---|---|")
            for name in chosen:
                print(_row(name, pictures, ids, real, extractor, options), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _row(
    name: str,
    pictures: PictureSet,
    ids: Tensor,
    real: Tensor,
    extractor: FeatureExtractor,
    options: argparse.Namespace,
) -> str:
    """One line of the table."""
    section = get_recipe("calotype", options.size).vae.with_overrides(VARIANTS[name])
    vae, steps = _trained(section, pictures, 60 * options.minutes)
    images = to_float(pictures.pixels[ids])
    with torch.no_grad():
        parts = [vae.decode(vae.encode(part)[0]).clamp(-1, 1) for part in images.split(64)]
    decoded = torch.cat(parts)
    previews.reconstructions(vae, pictures, previews.shown_ids(pictures), options.out / f"{_slug(name)}.png")
    features = extractor(decoded)
    return (
        f"| {name} | {count_parameters(vae) / 1e6:.2f} M | {steps * section.training.batch_size:,} "
        f"| {float(psnr(images, decoded).mean()):.2f} | {float(ssim(images, decoded).mean()):.3f} "
        f"| {kernel_distance(real, features):.4f} | {frechet_distance(real, features):.1f} |"
    )


def _trained(section: VAESection, pictures: PictureSet, seconds: float) -> tuple[FirstStage, int]:
    """The averaged VAE after so many CPU-seconds, by the library's loop, and its steps."""
    torch.manual_seed(0)
    objective = VAEObjective(
        build_vae(section.network),
        section.loss,
        lambda chosen: to_float(pictures.pixels[chosen]),
        pictures.train_ids,
        pictures.held_out_ids,
        0,
        torch.device("cpu"),
    )
    with TemporaryDirectory() as folder:
        place = Path(folder)
        journal = Journal(place / "journal.jsonl")
        journal.add("segment", stage="vae", start=0, seconds=seconds)
        metrics = Metrics(place / "metrics.jsonl", "vae")
        run = StageRun(place / "vae", journal, metrics, 0, Silent(), lambda *_: None)
        # The loop's clock is the processor's, so that a busy machine does not change the comparison.
        with mock.patch("time.monotonic", time.process_time):
            trained = train_stage(objective, section.training, run)
        steps = journal.segments("vae")[-1].end
    assert isinstance(trained, FirstStage)
    assert steps is not None
    return trained, steps


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
