"""Do a run's pictures look like what their prompts ask for, and are they copies? Prints JSON; writes it beside the run.

    python benchmarks/own_concept.py RUN [--prompts 192] [--images 4] [--guidance 3] [--out FILE]

Every sample is looked up, by features, in a gallery of 512 real pictures with the picture of its own caption among
them. Beside the score of the samples stands that of the reconstructions of the same pictures, which is the most that
the first stage lets through, and that of prompts whose pictures were held out from training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import calotype
from calotype.core.errors import UserError
from calotype.core.files import write_json
from calotype.evaluation import NearCopies, Retrieval, near_copies, own_concept
from calotype.features import FeatureExtractor, load_extractor
from calotype.images.dataset import PictureSet, load_prepared
from calotype.images.pixels import to_float
from calotype.images.similarity import psnr, ssim

PICTURES_PER_CALL = 64


@dataclass(frozen=True)
class Choice:
    """Ids into the picture set: `gallery` holds the pictures of the prompts first, then others."""

    prompts: Tensor
    gallery: Tensor


def main() -> int:
    options = _options()
    try:
        report = measure(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(options.out or options.run / "own_concept.json", report)
    print(json.dumps(report, indent=2))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--prompts", type=int, default=192, help="number of training prompts")
    parser.add_argument("--images", type=int, default=4, help="pictures (seeds) a prompt")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", default="dpm++2m")
    parser.add_argument("--gallery", type=int, default=512, help="real pictures to choose from")
    parser.add_argument("--seed", type=int, default=0, help="chooses prompts and gallery; the first picture's seed")
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, help="JSON file (default: RUN/own_concept.json)")
    return parser.parse_args()


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All scores of one run, as plain values."""
    started = time.monotonic()
    extractor = load_extractor(options.extractor)
    pictures = load_prepared(options.run / "data")
    if pictures is None:
        raise UserError(f"{options.run / 'data'} holds no prepared pictures", "name the folder of a finished run")
    model = calotype.load(options.run)
    if not model.captioned:
        raise UserError(f"{options.run} was trained without captions", "own-concept scores need prompts")
    features = _features(extractor, pictures)
    train_ids, held_out_ids = torch.as_tensor(pictures.train_ids), torch.as_tensor(pictures.held_out_ids)
    training = choose(pictures, train_ids, train_ids, options.prompts, options.gallery, options.seed)
    held_out = choose(pictures, held_out_ids, train_ids, options.prompts, options.gallery, options.seed)

    samples = _sample(model, pictures, training, options)
    sample_features = extractor(samples)
    held_out_features = extractor(_sample(model, pictures, held_out, options))
    train_pixels, held_out_pixels = (to_float(pictures.pixels[ids]).flatten(1) for ids in (train_ids, held_out_ids))
    return {
        "run": str(options.run),
        "extractor": extractor.name,
        "images_per_prompt": options.images,
        "first_seed": options.seed,
        "sampler": options.sampler,
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "samples": _score(sample_features, training, features),
        "reconstructions": _score(_reconstructed(extractor, model, pictures, training), training, features),
        "held_out_samples": _score(held_out_features, held_out, features),
        "held_out_reconstructions": _score(_reconstructed(extractor, model, pictures, held_out), held_out, features),
        "near_copies": {
            "features": _copies(near_copies(sample_features, features[train_ids], features[held_out_ids])),
            "pixels": _copies(near_copies(samples.flatten(1), train_pixels, held_out_pixels)),
        },
        "vae": _vae(model, pictures, held_out_ids),
        "seconds": round(time.monotonic() - started, 1),
    }


def choose(pictures: PictureSet, asked: Tensor, others: Tensor, prompts: int, gallery: int, seed: int) -> Choice:
    """Up to `prompts` of the ids `asked`, filled from `others` to a gallery; only captions that occur once."""
    counts = Counter(pictures.captions)
    generator = torch.Generator().manual_seed(seed)

    def shuffled(ids: Tensor) -> list[int]:
        own = [i for i in ids.tolist() if pictures.captions[i] and counts[pictures.captions[i]] == 1]
        return [own[k] for k in torch.randperm(len(own), generator=generator).tolist()]

    chosen = shuffled(asked)[:prompts]
    if not chosen:
        raise UserError("no picture has a caption of its own", "own-concept scores need captions that differ")
    taken = set(chosen)
    rest = [i for i in shuffled(others) if i not in taken]
    return Choice(torch.tensor(chosen), torch.tensor((chosen + rest)[: max(gallery, len(chosen))]))


def _sample(model: Any, pictures: PictureSet, choice: Choice, options: argparse.Namespace) -> Tensor:
    """Samples (prompts x images, 3, s, s), a prompt's pictures side by side; picture k has seed first + k."""
    prompts = [str(pictures.captions[i]) for i in choice.prompts.tolist()]
    per_call = max(1, PICTURES_PER_CALL // options.images)
    batches = []
    for start in range(0, len(prompts), per_call):
        images = model.sample_tensor(
            prompts[start : start + per_call],
            num_images=options.images,
            seed=options.seed + start * options.images,
            num_steps=options.steps,
            guidance_scale=options.guidance,
            sampler=options.sampler,
        )
        batches.append(images.clamp(-1, 1))
        print(f"sampled {min(start + per_call, len(prompts))} of {len(prompts)} prompts", file=sys.stderr)
    return torch.cat(batches)


def _features(extractor: FeatureExtractor, pictures: PictureSet) -> Tensor:
    """Features of every picture of the set, (n, d)."""
    total, batches = len(pictures.pixels), []
    for start in range(0, total, 256):
        batches.append(extractor(to_float(pictures.pixels[start : start + 256])))
        print(f"features of {min(start + 256, total)} of {total} pictures", file=sys.stderr)
    return torch.cat(batches)


def _through_vae(model: Any, images: Tensor) -> Tensor:
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in images.split(PICTURES_PER_CALL)])


def _reconstructed(extractor: FeatureExtractor, model: Any, pictures: PictureSet, choice: Choice) -> Tensor:
    """Features of the reconstructions of the prompts' own pictures."""
    return extractor(_through_vae(model, to_float(pictures.pixels[choice.prompts])))


def _score(features: Tensor, choice: Choice, real: Tensor) -> dict[str, Any]:
    """Own-concept score of features whose rows are the choice's prompts, each the same number of times."""
    own = torch.arange(len(choice.prompts)).repeat_interleave(len(features) // len(choice.prompts))
    score: Retrieval = own_concept(features, own, real[choice.gallery])
    return {**_rounded(asdict(score)), "chance5": round(score.chance5, 4)}


def _copies(copies: NearCopies) -> dict[str, Any]:
    return _rounded({name: getattr(copies, name) for name in ("share", "interval", "threshold", "nearer")})


def _vae(model: Any, pictures: PictureSet, ids: Tensor) -> dict[str, Any]:
    """What the first stage keeps of held-out pictures."""
    images = to_float(pictures.pixels[ids])
    reconstructed = _through_vae(model, images)
    return {
        "held_out_pictures": len(ids),
        "held_out_psnr": round(float(psnr(images, reconstructed).mean()), 3),
        "held_out_ssim": round(float(ssim(images, reconstructed).mean()), 4),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [round(part, 4) for part in value] if isinstance(value, tuple) else round(value, 4)
        for name, value in values.items()
    }


if __name__ == "__main__":
    sys.exit(main())
