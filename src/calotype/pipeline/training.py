"""The door to training: settings in full, one run folder, one process at a time."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from calotype.core import distributed
from calotype.core.errors import UserError
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.images.sizing import SMALL, natural_size
from calotype.images.source import Data, open_source, source_name
from calotype.latents import pretrained_vae_config
from calotype.pipeline.bundle import load
from calotype.pipeline.origin import with_origin
from calotype.pipeline.run import Run
from calotype.pipeline.stages import run_stages
from calotype.recipes import Recipe, get_recipe
from calotype.training.journal import Budget

DEFAULT_MINUTES = 30.0


def train(
    data: Data,
    *,
    recipe: str = "calotype",
    out: str | Path | None = None,
    size: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    from_model: str | Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    track: Sequence[str] = (),
    reporter: Reporter | None = None,
    look: Callable[[Run], object] | None = None,
) -> Run:
    """Train a latent diffusion model on `data`, or continue the run in `out`; returns the finished run.

    `minutes` is the length of the whole run (default 30), `steps` that of the denoiser's training instead. The same
    call continues a stopped run, to the bit; a larger budget trains on. `track` names what is told of progress besides
    metrics.jsonl: tensorboard, wandb, trackio. `look` is given the run whenever there are new previews in it. Under
    torchrun every process makes this call, and all train together.
    Raises UserError for wrong input.
    """
    started = time.monotonic()
    if minutes is not None and steps is not None:
        raise UserError("both --minutes and --steps were given", "give one of them")
    for name, value in (("--minutes", minutes), ("--steps", steps)):
        if value is not None and not 0 < value < 10_000_000:
            raise UserError(f"{name} {value:g} is not a length of training", "give a number above 0")
    budget = Budget(steps=steps) if steps is not None else Budget(minutes=minutes or DEFAULT_MINUTES)
    if out is None and not isinstance(data, str | Path):
        raise UserError("pictures without a name need a folder for their run", "give out='runs/mine'")
    run = Run(Path(out) if out is not None else Path("runs") / (Path(source_name(data)).stem or "run"))
    try:
        with distributed.joined(choose_device(device)) as own_device, ExitStack() as held:
            if distributed.rank() == 0:
                words = source_name(data)
                if size is None:
                    size, data = sized(run, data)
                asked = full_settings(run, recipe, size, seed, overrides, from_model)
                origin = from_model and str(from_model)
                held.enter_context(run.locked())
                run.write_config({"data": words, "from": origin, "recipe": asked.model_dump(mode="json")})
            distributed.barrier()
            teller = (reporter or Silent()) if distributed.rank() == 0 else Silent()
            run_stages(
                run,
                data,
                budget,
                from_model=from_model,
                device=own_device,
                reporter=teller,
                started=started,
                track=track,
                look=look,
            )
            distributed.barrier()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full ({error.filename or run.folder})",
                "free some space and give the same command again: the last checkpoint is whole",
            ) from None
        raise
    return run


def sized(run: Run, data: Data) -> tuple[int, Data]:
    """The side of the pictures where the user did not say, and the data, opened if that took a look at it."""
    if run.config.exists():
        return run.recipe.size, data
    if data == "openmoji":
        return natural_size(data), data
    source = open_source(data, size=SMALL)
    return natural_size(source), source


def full_settings(
    run: Run,
    recipe: str,
    size: int,
    seed: int,
    overrides: Sequence[str],
    from_model: str | Path | None,
) -> Recipe:
    """The recipe in full: named, sized for the data, overridden."""
    asked = get_recipe(recipe, size).with_overrides([f"seed={seed}", *overrides])
    if from_model is not None:
        if asked.vae.taken is not None:
            raise UserError(f"{from_model} brings its own VAE, beside vae.from={asked.vae.origin}", "leave one out")
        model = load(from_model, "cpu")
        asked = asked.model_copy(update={"vae": asked.vae.model_copy(update={"network": model.recipe.vae.network})})
    elif asked.vae.pretrained is not None:
        known = run.recipe.vae if run.config.exists() else None
        same = known is not None and known.pretrained == asked.vae.pretrained
        network = known.network if known and same else pretrained_vae_config(asked.vae.pretrained)
        asked = asked.model_copy(update={"vae": asked.vae.model_copy(update={"network": network})})
    else:
        asked = asked.model_copy(update={"vae": with_origin(run, asked)})
    f = asked.vae.network.downsampling
    levels = 2 ** (len(asked.network.channels) - 1)
    if asked.size % (f * levels):
        raise UserError(f"pictures of {asked.size} pixels do not fit this recipe", f"choose a multiple of {f * levels}")
    return asked
